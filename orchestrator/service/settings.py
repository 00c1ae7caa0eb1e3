"""From what a user wrote to settings of a stream, or to one line that names the key and the nearest valid one."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from orchestrator.assignments import put
from orchestrator.errors import BadInput
from orchestrator.settings import StreamSettings

VALUE_SHOWN = 60
"""Characters of a wrong value in an error message."""


def parse(raw: Mapping[str, Any]) -> StreamSettings:
    """Validate the settings of a stream.

    Raises:
        BadInput: one line about the first wrong key or value.
    """
    refuse_non_finite(raw)
    try:
        return StreamSettings.model_validate(dict(raw))
    except ValidationError as error:
        raise BadInput(explain(error, StreamSettings)) from error


def refuse_non_finite(given: Any, key: str = "") -> None:
    """No setting means anything as NaN or without a bound.

    Raises:
        BadInput: the first value that is not finite, by its dotted key.
    """
    if isinstance(given, float) and not math.isfinite(given):
        raise BadInput(f"{key}: {given} is not a finite number")
    inner = given.items() if isinstance(given, Mapping) else enumerate(given) if isinstance(given, list | tuple) else ()
    for name, one in inner:
        refuse_non_finite(one, f"{key}.{name}".lstrip("."))


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first of the errors as one line, and how many more there are."""
    details = sorted(error.errors(include_url=False), key=lambda one: one["type"] == "missing")
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return _explain_one(details[0], model) + more


def with_changes(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with each dotted key set to its value, in their order.

    Raises:
        BadInput: a key leads through something that is no mapping.
    """
    changed = copy.deepcopy(dict(settings))
    for key, value in changes.items():
        put(changed, key, value)
    return changed


def _explain_one(detail: ErrorDetails, model: type[BaseModel]) -> str:
    path, models = _walk(detail["loc"], model)
    where = _key(path)
    if detail["type"] == "extra_forbidden":
        return f"unknown key {where}; {_valid_keys(path, models)}"
    if detail["type"] == "missing":
        return f"{where} is missing; give it in the settings"
    if where == "format":
        return f"format {_shown(detail['input'])} is not known to this Rekindle, which reads format 1; upgrade Rekindle"
    if detail["type"] == "union_tag_invalid":
        ctx = detail.get("ctx", {})
        tag, known = ctx.get("tag"), _words(str(ctx.get("expected_tags")))
        return f"{where}: {_shown(tag)} {is_none_of(str(tag), known)}"
    said = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return f"{where or 'settings'}: {_shown(detail['input'])} {_is_wrong(detail, said)}"


def _is_wrong(detail: ErrorDetails, said: str) -> str:
    if detail["type"] != "literal_error":
        return f"is not valid: {said}"
    return is_none_of(str(detail["input"]), _words(str(detail.get("ctx", {}).get("expected", ""))))


def _words(expected: str) -> list[str]:
    return [word.strip(" '") for word in expected.replace(" or ", ", ").split(",")]


def is_none_of(given: str, known: Sequence[str]) -> str:
    """The rest of a sentence that begins with what was given: the words there are, and the nearest of them."""
    close = get_close_matches(given, known, n=1)
    return f"is not one of {', '.join(known)}" + (f"; did you mean {close[0]}?" if close else "")


def _valid_keys(path: Sequence[int | str], models: list[type[BaseModel]]) -> str:
    known = sorted({name for one in models for name in one.model_fields})
    close = get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {_key((*path[:-1], close[0]))}?"
    return f"valid keys here: {', '.join(known)}"


def _walk(loc: Sequence[int | str], model: type[BaseModel]) -> tuple[list[int | str], list[type[BaseModel]]]:
    """The path without the tags that pydantic adds for unions, and the records that its last part may stand in."""
    path: list[int | str] = []
    here, models = [model], [model]
    for part in loc:
        tagged = [one for one in models if _kind(one) == part]
        if tagged and len(models) > 1:
            models = tagged
            continue
        path.append(part)
        here = models
        if isinstance(part, str):
            fields = [one.model_fields[part] for one in models if part in one.model_fields]
            models = [found for one in fields for found in _models_in(one.annotation)]
    return path, here


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for one in get_args(annotation) for found in _models_in(one)]


def _kind(model: type[BaseModel]) -> Any:
    field = model.model_fields.get("kind")
    return None if field is None else field.default


def _key(path: Sequence[int | str]) -> str:
    """The dotted key as a user writes it, without the types of unions that pydantic adds."""
    return ".".join(str(part) for part in path if not {"[", "-"} & set(str(part)))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= VALUE_SHOWN else text[: VALUE_SHOWN - 1] + "…"
