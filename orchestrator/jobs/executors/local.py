"""Processes on this machine, each in a session of its own, joined to the daemon by nothing but its directory."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.jobs import identity
from orchestrator.jobs.environment import environment
from orchestrator.jobs.executors import launch
from orchestrator.jobs.executors.contract import Grant, Handle, Sighting
from storage.files import write_json_atomic

LAUNCHER = "orchestrator.jobs.executors.launch"
EXIT = "exit.json"


class LocalExecutor:
    """Runs ``python -P -m MODULE`` through the launcher.

    It keeps nothing in memory: a new one, in this daemon or the next, sees the same.
    """

    def __init__(self, module: str = "strategies.jobs") -> None:
        self.module = module

    def start(self, directory: Path, *, arguments: Sequence[str], grant: Grant) -> Handle:
        """Start the process and return at once.

        Raises:
            OSError: the process could not be made.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", LAUNCHER, str(directory), self.module, *arguments]
        variables = environment(os.environ, grant=grant, modules=(LAUNCHER, self.module))
        # posix_spawn, not fork: safe beside threads, and there is no object whose end would matter to the child.
        pid = os.posix_spawn(sys.executable, command, variables, setsid=True)
        handle = identity.handle_of(pid)
        if handle is None:
            raise OSError(f"process {pid} cannot be seen; is /proc mounted?")
        return handle

    def find(self, directory: Path) -> Handle | None:
        """The process that started in this directory, by its own account."""
        content = _read(directory / launch.PROCESS)
        if content is None:
            return None
        return Handle(boot_id=str(content["boot_id"]), pid=int(content["pid"]), started=int(content["started"]))

    def void(self, directory: Path) -> bool:
        """Forbid any start in this directory; False if a process has started there."""
        return launch.void(directory)

    def observe(self, directory: Path, handle: Handle) -> Sighting:
        """Whether the process lives, and how it ended; reaps it if it was this daemon's child."""
        known = _read(directory / EXIT)
        if known is not None:
            return Sighting(process="gone", exit_code=int(known["exit_code"]))
        found = identity.find(handle)
        if found is None:
            return Sighting(process="gone")
        if not found.zombie:
            return Sighting(process="alive", running_s=identity.running_s(handle))
        return Sighting(process="gone", exit_code=_reap(directory, handle))

    def terminate(self, handle: Handle) -> bool:
        """SIGTERM to the process; False if it is gone."""
        return identity.send(handle, signal.SIGTERM)

    def kill(self, handle: Handle) -> bool:
        """SIGKILL to the process and its group; False if it is gone."""
        return identity.send(handle, signal.SIGKILL, group=True)


def _reap(directory: Path, handle: Handle) -> int | None:
    """The exit code of our own dead child, kept in its directory; None for another's."""
    try:
        pid, status = os.waitpid(handle.pid, os.WNOHANG)
    except ChildProcessError:
        return None
    if pid == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    write_json_atomic(directory / EXIT, {"exit_code": code})
    return code


def _read(path: Path) -> dict[str, Any] | None:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text("utf-8"))
        return content if isinstance(content, dict) else None
    return None
