"""Printing: JSON for scripts, tables for people; nothing from outside may steer the terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from orchestrator.cli.base import OPTIONS

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], Any]]


def clean(text: str, *, keep: str = "") -> str:
    """The text with everything unprintable written out, so that no escape sequence reaches the terminal."""
    return "".join(letter if letter.isprintable() or letter in keep else _written_out(letter) for letter in text)


def _written_out(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def is_json() -> bool:
    """Whether scripts are listening."""
    return OPTIONS.output == "json"


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2, sort_keys=False))


def say(text: str) -> None:
    """A line for people on stdout; silent where scripts are listening."""
    if not is_json():
        print(clean(text, keep="\n"))


def note(text: str) -> None:
    """A line for people on stderr."""
    print(clean(text, keep="\n"), file=sys.stderr)


def show_list(rows: Sequence[Row], columns: Sequence[Column], *, empty: str) -> None:
    """A JSON array, or a table."""
    if is_json():
        print_json(list(rows))
    elif not rows:
        print(empty)
    else:
        print_table([name for name, _ in columns], [[text(value(row)) for _, value in columns] for row in rows])


def show_one(record: Row, lines: Sequence[tuple[str, Any]]) -> None:
    """A JSON object, or one line a fact; facts that are not there are left out."""
    if is_json():
        print_json(record)
        return
    shown = [(clean(name), text(value)) for name, value in lines if value not in (None, [], {}, "")]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name:<{width}}  {value}")


def print_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn by rich on a terminal, plain columns elsewhere."""
    headers, rows = [clean(name) for name in headers], [[clean(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(headers, rows)
        return
    widths = [max(len(cell) for cell in column) for column in zip(headers, *rows, strict=True)]
    for row in (headers, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_rich(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in headers:
        table.add_column(Text(name))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def text(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(text(one) for one in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{key}={text(one)}" for key, one in value.items()) or "-"
    return clean(str(value))


def when(value: str | None) -> str:
    """An instant in the machine's own time zone, to the minute."""
    if value is None:
        return "-"
    return datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M")


def size(count: int) -> str:
    """Bytes as people read them."""
    amount, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):  # noqa: B007 - the last unit is used below
        if amount < 1000:
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def field(name: str) -> Callable[[Row], Any]:
    """The column of that field."""
    return lambda row: row[name]


def time_field(name: str) -> Callable[[Row], Any]:
    """The column of that instant."""
    return lambda row: when(row[name])
