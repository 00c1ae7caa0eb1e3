"""Files that an interrupted command left and another takes up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError

from strategies.errors import BadState

Read = TypeVar("Read")


def read_kept(path: Path, read_it: Callable[[Path], Read]) -> Read:
    """What ``read_it`` makes of a file that was kept.

    Raises:
        BadState: the file is damaged.
    """
    try:
        return read_it(path)
    except (SafetensorError, ValueError, TypeError, StopIteration) as error:
        raise BadState(f"{path} cannot be read; remove it, and it is made anew") from error
