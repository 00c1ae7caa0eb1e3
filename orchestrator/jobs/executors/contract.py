"""What an executor is: it starts a module in a directory, sees whether the process lives, and signals it.

Rules that every executor keeps:

- the process outlives the daemon: nothing but the directory joins them;
- in one directory at most one process ever starts, however many daemons try;
- a directory that was voided before its process started never starts one;
- a process is signalled only when boot id, pid and start time all agree;
- an exit code, once seen, stays in the directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Slots given to one attempt."""

    cpus: int
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Handle:
    """Which process: a pid alone is used again, the three together never."""

    boot_id: str
    pid: int
    started: int


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What is seen of a process. ``exit_code`` is None where nobody could learn it; a signal's number is negative."""

    process: Literal["alive", "gone"]
    exit_code: int | None = None
    running_s: float = 0.0


class Executor(Protocol):
    """One way of running an attempt."""

    def start(self, directory: Path, *, arguments: Sequence[str], grant: Grant) -> Handle:
        """Start the process and return at once.

        Raises:
            OSError: the process could not be made.
        """

    def find(self, directory: Path) -> Handle | None:
        """The process that started in this directory, by its own account."""

    def void(self, directory: Path) -> bool:
        """Forbid any start in this directory; False if a process has started there."""

    def observe(self, directory: Path, handle: Handle) -> Sighting:
        """Whether the process lives, and how it ended."""

    def terminate(self, handle: Handle) -> bool:
        """SIGTERM to the process; False if it is gone."""

    def kill(self, handle: Handle) -> bool:
        """SIGKILL to the process and its group; False if it is gone."""
