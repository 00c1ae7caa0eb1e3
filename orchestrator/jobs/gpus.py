"""Whose memory is free: asked of nvidia-smi beside the daemon's loop, which never waits for a driver."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future

FREE_SHARE = 0.9
"""A GPU with less of its memory free is somebody else's."""
FRESH_S = 10.0
QUERY = ["--query-gpu=index,memory.free,memory.total", "--format=csv,noheader,nounits"]


class GpuProbe:
    """Remembers which GPUs were idle at the last look; without nvidia-smi all of them count as idle."""

    def __init__(self, gpus: Sequence[int], workers: Executor, monotonic: Callable[[], float]) -> None:
        self._gpus = frozenset(gpus)
        self._workers = workers
        self._monotonic = monotonic
        self._tool = shutil.which("nvidia-smi") if gpus else None
        self._idle: frozenset[int] = frozenset()
        self._looked_at: float | None = None
        self._pending: Future[frozenset[int]] | None = None

    def idle(self) -> frozenset[int]:
        """GPUs that were idle within the last seconds; none while the first answer is on its way."""
        if self._tool is None:
            return self._gpus
        self._collect()
        fresh = self._looked_at is not None and self._monotonic() - self._looked_at < FRESH_S
        if not fresh and self._pending is None:
            self._pending = self._workers.submit(look, self._tool)
        return self._idle if fresh else frozenset()

    def _collect(self) -> None:
        if self._pending is None or not self._pending.done():
            return
        pending, self._pending = self._pending, None
        self._idle = pending.result() & self._gpus if pending.exception() is None else frozenset()
        self._looked_at = self._monotonic()


def look(tool: str) -> frozenset[int]:
    """Indices of the GPUs whose memory is nearly all free."""
    answer = subprocess.run([tool, *QUERY], capture_output=True, text=True, timeout=30, check=True)
    rows = [line.split(",") for line in answer.stdout.splitlines() if line.count(",") == 2]
    return frozenset(int(index) for index, free, total in rows if _is_free(free, total))


def _is_free(free: str, total: str) -> bool:
    try:
        return float(free) >= FREE_SHARE * float(total)
    except ValueError:
        return False
