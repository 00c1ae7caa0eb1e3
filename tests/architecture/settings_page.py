"""Writes docs/settings.md from the settings themselves: ``python -m tests.architecture.settings_page``."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from orchestrator.daemon_settings import PREFIX, DaemonSettings
from orchestrator.settings import StreamSettings
from tests.architecture.tree import ROOT

PAGE = ROOT / "docs" / "settings.md"
HEAD = """# Settings of a stream

This page is made from the settings' own descriptions by `python -m tests.architecture.settings_page`.
A test fails where it is out of date.

A stream is set with `rekindle stream add NAME --config FILE.yaml`, with `--set key.path=value` on top.
`rekindle stream set` changes it later.
An unknown key is refused.
`rekindle stream show NAME` prints each value with its origin, `rekindle stream schema` the JSON Schema.

A section with a `kind` comes in several forms, each with keys of its own.
Here `strategy.mixing[replay].share` is the key `strategy.mixing.share` where `strategy.mixing.kind` is `replay`.
Within `strategy` the kind alone stands for the whole section with its defaults: `strategy.schedule=infinite`.
A form that may stand in several places is listed at the first of them, and the others link to it.
"""
DAEMON_HEAD = """# Settings of the daemon

They come from the environment, as `REKINDLE__SECTION__KEY`; options of `rekindle serve` go before them.
A variable with this prefix that names no setting stops the start.
"""
ROOT_TITLE = "The stream"
Row = tuple[str, str, str, str]
Places = Mapping[type[BaseModel], str]
"""Every record of the settings, and the path of its keys where it comes first."""


def page() -> str:
    """The whole page."""
    placed = places()
    stream = (line for model, path in placed.items() for line in _section(_title(path), model, path, placed))
    return "\n".join([HEAD, *stream, DAEMON_HEAD, *_daemon()]) + "\n"


def keys() -> list[str]:
    """The path of every setting, with the kind of each section that has one."""
    return [f"{path}{name}" for model, path in places().items() for name in model.model_fields]


def places() -> Places:
    """The records of a stream's settings, each where it comes first."""
    found: dict[type[BaseModel], str] = {}
    _place(StreamSettings, "", found)
    return found


def _place(model: type[BaseModel], path: str, found: dict[type[BaseModel], str]) -> None:
    if model in found:
        return
    found[model] = path
    for name, field in model.model_fields.items():
        for inner in _inner(field.annotation):
            kind = _kind(inner)
            _place(inner, f"{path}{name}." if kind is None else f"{path}{name}[{kind}].", found)


def _inner(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for argument in get_args(annotation):
        yield from _inner(argument)


def _kind(model: type[BaseModel]) -> str | None:
    kind = model.model_fields.get("kind")
    return None if kind is None else str(kind.default)


def _daemon() -> Iterator[str]:
    for name, field in DaemonSettings.model_fields.items():
        for model in _inner(field.annotation):
            prefix = f"{PREFIX}{name.upper()}"
            yield from _section(f"`{prefix}`", model, f"{prefix}__", {}, spell=str.upper)


def _title(path: str) -> str:
    return f"`{path.removesuffix('.')}`" if path else ROOT_TITLE


def _section(
    title: str, model: type[BaseModel], prefix: str, placed: Places, *, spell: Callable[[str], str] = str
) -> list[str]:
    about = " ".join((model.__doc__ or "").split("\n\n")[0].split())
    rows = [_row(f"{prefix}{spell(name)}", field, placed) for name, field in model.model_fields.items()]
    table = ["| key | type | default | what it is |", "| --- | --- | --- | --- |"]
    return [f"## {title}", "", about, "", *table, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _row(path: str, field: FieldInfo, placed: Places) -> Row:
    text = (field.description or "").replace("|", "\\|")
    return f"`{path}`", _type_name(field.annotation, placed).replace("|", "\\|"), _default(field), text


def _type_name(annotation: Any, placed: Places) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(str(argument) for argument in arguments)
    if origin in (Union, types.UnionType):
        named = (_type_name(argument, placed) for argument in arguments if argument is not type(None))
        return " | ".join(dict.fromkeys(named))
    if origin is Annotated:
        return _type_name(arguments[0], placed)
    if origin is tuple:
        return f"list of {_type_name(arguments[0], placed)}"
    if origin is dict:
        return f"map of {_type_name(arguments[1], placed)}"
    if issubclass(annotation, BaseModel):
        return f"[{_kind(annotation) or 'section'}](#{_anchor(placed[annotation])})"
    return {"str": "text", "bool": "true | false", "int": "whole number", "float": "number"}[annotation.__name__]


def _anchor(path: str) -> str:
    """What GitHub makes of a section's title."""
    return re.sub(r"[^\w\- ]", "", _title(path).lower()).replace(" ", "-")


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "*required*"
    if isinstance(value, BaseModel):
        return f"`{_kind(type(value))}`" if _kind(type(value)) else "its defaults"
    if value in (None, (), {}):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
