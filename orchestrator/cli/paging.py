"""Lists that may be long: the newest rows, and a word where there are more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from orchestrator.cli.output import Column, note, show_list

Limit = Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Show at most this many, the newest.")]
Before = Annotated[int | None, typer.Option(min=1, metavar="ID", help="Show only those older than this one.")]


def show_page(
    rows: Sequence[dict[str, Any]], columns: Sequence[Column], *, limit: int, empty: str, key: str = "id"
) -> None:
    """The rows, and on stderr how to see those before them."""
    show_list(rows, columns, empty=empty)
    if len(rows) == limit:
        note(f"the newest {limit}; --before {rows[0][key]} shows those before, --limit up to 1000 more at once")
