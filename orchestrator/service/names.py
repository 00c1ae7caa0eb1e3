"""How people name a version: NAME, NAME/3 or NAME@live."""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestrator.errors import BadInput

_REFERENCE = re.compile(r"(?P<stream>[a-z0-9][a-z0-9._-]{0,62})(?:/(?P<number>[1-9][0-9]{0,8})|@live)?")


@dataclass(frozen=True, kw_only=True)
class VersionName:
    """A stream and, unless the live version is meant, a number."""

    stream: str
    number: int | None = None

    def __str__(self) -> str:
        return f"{self.stream}@live" if self.number is None else f"{self.stream}/{self.number}"


def parse_version_name(text: str) -> VersionName:
    """Read NAME, NAME/3 or NAME@live; without a number the live version is meant.

    Raises:
        BadInput: it is none of the three.
    """
    found = _REFERENCE.fullmatch(text)
    if found is None:
        raise BadInput(f"{text!r} does not name a version; write NAME, NAME/3 or NAME@live")
    number = found["number"]
    return VersionName(stream=found["stream"], number=None if number is None else int(number))


def parse_numbered(text: str) -> tuple[str, int]:
    """Read NAME/3, where a number is needed.

    Raises:
        BadInput: there is no number.
    """
    name = parse_version_name(text)
    if name.number is None:
        raise BadInput(f"{text!r} names no version number; write {name.stream}/3, say")
    return name.stream, name.number
