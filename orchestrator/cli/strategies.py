"""``rekindle strategy …``."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.base import command, group
from orchestrator.cli.client import get, part
from orchestrator.cli.output import Row, field, show_list, show_one, text

strategies = group("See which strategies for retraining there are.")


def _screws(row: Row) -> str:
    composition = row["composition"] or {}
    kinds = [value["kind"] for value in composition.values() if isinstance(value, dict)]
    return " × ".join(kinds) if kinds else "chosen at each retrain"


COLUMNS = (("NAME", field("name")), ("COMPOSED OF", _screws), ("SUMMARY", field("summary")))


def add_to(app: typer.Typer) -> None:
    """Put these commands under the program."""
    app.add_typer(strategies, name="strategy")


@command(strategies, "list", "rekindle strategy list")
def list_strategies() -> None:
    """List the strategies and what each is composed of."""
    show_list(get("/strategies"), COLUMNS, empty="no strategies")


@command(strategies, "show", "rekindle strategy show rewarm-replay", "rekindle strategy show naive --output json")
def show_strategy(name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the strategy.")]) -> None:
    """Show what a strategy is composed of; a stream's settings can change any part of it."""
    found = get(f"/strategies/{part(name)}")
    screws = found["composition"] or {"composition": "chosen at each retrain from what was measured"}
    lines = [(key, _in_words(value)) for key, value in screws.items()]
    lines += [("note", found["note"])] if found["note"] else []
    lines += [(f"rule {number}", _rule(one)) for number, one in enumerate(found["rules"], start=1)]
    show_one(
        found,
        [("strategy", found["name"]), ("summary", found["summary"]), *lines, ("sources", ", ".join(found["sources"]))],
    )


def _rule(rule: Row) -> str:
    """When it holds, what it asks for, and who says so; the first that holds wins."""
    return f"{rule['choice']} where {rule['when']} ({rule['source']})"


def _in_words(value: object) -> str:
    """A screw's kind with its settings in brackets; settings within settings have brackets of their own."""
    if not isinstance(value, dict):
        return text(value)
    settings = ", ".join(f"{key} {_in_words(one)}" for key, one in value.items() if key != "kind" and one is not None)
    return " ".join(part for part in (value.get("kind"), f"({settings})" if settings else "") if part)
