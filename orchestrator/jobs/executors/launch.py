"""``python -P -m orchestrator.jobs.executors.launch DIRECTORY MODULE ARGUMENT...``: become a job, once a directory.

The process takes the directory's lock, writes ``process.json`` (who it is) and turns into ``python -P -m MODULE``; pid
and start time stay, and the lock stays held until the process and its children end. So a daemon that comes later can
tell, without guessing at times, whether a process started here, and can forbid a start that has not happened yet.
Only the standard library is imported: this runs before every job.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import resource
import sys
from pathlib import Path

LOCK = "lock"
VOID = "void"
PROCESS = "process.json"
LOG = "job.log"
OOM_SCORE_ADJ = "500"
PR_SET_NO_NEW_PRIVS = 38
EXIT_NOT_STARTED = 71
"""The directory was voided or already has its process; nothing was run."""


def main(arguments: list[str]) -> None:
    """Claim the directory and become the module, or end because that is forbidden."""
    directory, module, *rest = arguments
    os.chdir(directory)
    _redirect_output()
    if not _claim():
        sys.exit(EXIT_NOT_STARTED)
    _restrict()
    os.execv(sys.executable, [sys.executable, "-P", "-m", module, *rest])  # noqa: S606 - an argument list, no shell


def void(directory: Path) -> bool:
    """Forbid a start in ``directory``; False if one has happened."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _lock(descriptor) or (directory / PROCESS).exists():
            return False
        (directory / VOID).touch()
        return True
    finally:
        os.close(descriptor)


def _claim() -> bool:
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    if not _lock(descriptor) or os.path.exists(VOID) or os.path.exists(PROCESS):
        return False
    os.set_inheritable(descriptor, True)
    # Imported late: it reads /proc with the same code as the daemon.
    from orchestrator.jobs.identity import handle_of

    handle = handle_of(os.getpid())
    if handle is None:
        return False
    temporary = Path(f"{PROCESS}.new")
    temporary.write_text(json.dumps({"boot_id": handle.boot_id, "pid": handle.pid, "started": handle.started}))
    temporary.rename(PROCESS)
    return True


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _redirect_output() -> None:
    """Without O_APPEND: when the daemon cuts an overlong log, later lines keep their offsets behind a hole."""
    log = os.open(LOG, os.O_WRONLY | os.O_CREAT, 0o600)
    os.lseek(log, 0, os.SEEK_END)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.closerange(3, 1024)


def _restrict() -> None:
    """First to die when memory is short, no core dumps, no new privileges; each only where the system has it."""
    os.umask(0o077)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJ)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
