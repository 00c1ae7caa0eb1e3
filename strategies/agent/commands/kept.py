"""Files that an interrupted command left, and another takes up: whole or not there, named where they are damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from strategies.errors import BadState

Read = TypeVar("Read")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file as a whole or not at all."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    write(part)
    part.replace(path)


def read_kept(path: Path, read_it: Callable[[Path], Read]) -> Read:
    """What :func:`write_whole` wrote.

    Raises:
        BadState: the file is damaged.
    """
    try:
        return read_it(path)
    except (SafetensorError, ValueError, TypeError, StopIteration) as error:
        raise BadState(f"{path} cannot be read; remove it, and it is made anew") from error
