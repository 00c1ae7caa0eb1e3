"""Work that the daemon's loop starts and never waits for: at most one task a key, a fixed number of threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import structlog

log = structlog.get_logger()

REST_S = 30.0
"""A task that failed is not started again sooner: what fails at once must not fill a core and the log."""


class Background:
    """A small pool of threads with named tasks. A task that fails is logged, and rests before it may start again."""

    def __init__(self, *, threads: int = 4, on_done: Callable[[], None] = lambda: None) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="background")
        self._running: dict[str, Future[None]] = {}
        self._resting: dict[str, float] = {}
        self._lock = threading.Lock()
        self._on_done = on_done

    def start(self, key: str, task: Callable[[], object]) -> bool:
        """Run ``task`` unless one of the same key is under way or failed just now; say whether it was started."""
        with self._lock:
            if key in self._running or time.monotonic() < self._resting.get(key, 0.0):
                return False
            self._resting.pop(key, None)
            self._running[key] = self._pool.submit(self._run, key, task)
            return True

    def close(self) -> None:
        """Wait for what runs; start nothing more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, key: str, task: Callable[[], object]) -> None:
        try:
            task()
        except Exception as error:  # a task's failure must not take the daemon down
            log.exception("background task failed", action="background_failed", key=key, error=str(error))
            self._resting[key] = time.monotonic() + REST_S
        finally:
            with self._lock:
                self._running.pop(key, None)
            self._on_done()
