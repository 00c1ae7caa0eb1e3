"""Which process is meant: boot id, pid and start time. Standard library only, and psutil where there is no ``/proc``.

A job writes them into its heartbeat, and who looks after the job finds the process by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process as the kernel shows it; ``started`` counts clock ticks since boot on Linux, else milliseconds."""

    started: int
    zombie: bool


@cache
def boot_id() -> str:
    """Another one after every boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        import psutil

        return f"boot-{psutil.boot_time():.0f}"


def look(pid: int) -> Process | None:
    """The process with this pid now, whoever it is."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _look_portably(pid)
    fields = stat[stat.rindex(b")") + 2 :].split()
    return Process(started=int(fields[19]), zombie=fields[0] in (b"Z", b"X"))


def _look_portably(pid: int) -> Process | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return Process(started=int(process.create_time() * 1000), zombie=process.status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return None
