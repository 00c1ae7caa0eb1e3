"""JSON as RFC 8259 has it, from sources that are not trusted: no NaN, no duplicate keys, no deep nesting."""

from __future__ import annotations

import json
import math
import re
from typing import Any

_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.)*+"|[\[{]|[\]}]', re.DOTALL)


class JsonProblem(ValueError):  # noqa: N818 - says what the text has
    """Why a text is not usable JSON: ``reason`` is one of few, ``detail`` is its own."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


def parse(text: str, *, max_nesting: int) -> Any:
    """The value of ``text``.

    Raises:
        JsonProblem: it is not strict JSON, or nests deeper than ``max_nesting``.
    """
    if _deeper_than(text, max_nesting):
        raise JsonProblem("nested too deep", f"more than {max_nesting} levels")
    try:
        return _DECODER.decode(text)
    except JsonProblem:
        raise
    except json.JSONDecodeError as error:
        raise JsonProblem("not valid JSON", f"{error.msg} at character {error.pos}") from None
    except ValueError:
        # Python refuses to convert integers of more than 4300 digits: their time is quadratic.
        raise JsonProblem("number out of range", "integer of too many digits") from None


def dump(value: Any) -> str:
    """Canonical JSON: one text for equal values."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _deeper_than(text: str, limit: int) -> bool:
    if text.count("[") + text.count("{") <= limit:
        return False
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text):
        first = text[token.start()]
        depth += (first in "[{") - (first in "]}")
        if depth > limit:
            return True
    return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise JsonProblem("duplicate key", repr(repeated[:50]))
    return found


def _constant(name: str) -> Any:
    raise JsonProblem("number out of range", name)


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise JsonProblem("number out of range", digits[:50])
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite)
