"""Writes docs/settings.md from the settings themselves: ``python -m tests.architecture.settings_page``."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
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
"""
Row = tuple[str, str, str, str]


DAEMON_HEAD = """# Settings of the daemon

They come from the environment, as `REKINDLE__SECTION__KEY`; options of `rekindle serve` go before them.
A variable with this prefix that names no setting stops the start.
"""


def page() -> str:
    """The whole page."""
    stream = [HEAD, *_section("The stream", StreamSettings, ""), *_sections(StreamSettings, "")]
    return "\n".join([*stream, DAEMON_HEAD, *_daemon()]) + "\n"


def _daemon() -> Iterator[str]:
    for name, field in DaemonSettings.model_fields.items():
        for model in _inner(field.annotation):
            yield from _section(name.capitalize(), model, f"{PREFIX}{name.upper()}__", spell=str.upper)


def keys() -> list[str]:
    """The path of every setting, as ``--set`` takes it."""
    return [f"{prefix}{name}" for prefix, model in _models(StreamSettings, "") for name in model.model_fields]


def _sections(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for path, found in _models(model, prefix):
        if found is not model:
            yield from _section(f"`{path.rstrip('.')}`", found, path)


def _models(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """The model and all models in it, each with the path of its keys."""
    yield prefix, model
    for name, field in model.model_fields.items():
        for inner in _inner(field.annotation):
            kind = inner.model_fields.get("kind")
            path = f"{prefix}{name}." if kind is None else f"{prefix}{name}[{kind.default}]."
            yield from _models(inner, path)


def _inner(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    for argument in get_args(annotation):
        yield from _inner(argument)


def _section(title: str, model: type[BaseModel], prefix: str, *, spell: Callable[[str], str] = str) -> list[str]:
    about = " ".join((model.__doc__ or "").split("\n\n")[0].split())
    rows = [_row(f"{prefix}{spell(name)}", field) for name, field in model.model_fields.items()]
    table = ["| key | type | default | what it is |", "| --- | --- | --- | --- |"]
    return [f"## {title}", "", about, "", *table, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _row(path: str, field: FieldInfo) -> Row:
    text = (field.description or "").replace("|", "\\|")
    return f"`{path}`", _type_name(field.annotation).replace("|", "\\|"), _default(field), text


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(str(argument) for argument in arguments)
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(_type_name(argument) for argument in arguments if argument is not type(None)))
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return f"map of {_type_name(arguments[1])}"
    return {"str": "text", "bool": "true | false", "int": "whole number", "float": "number"}.get(
        annotation.__name__, "section"
    )


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "*required*"
    if isinstance(value, BaseModel):
        return "see below"
    if value in (None, (), {}):
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
