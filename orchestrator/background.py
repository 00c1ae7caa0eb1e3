"""Work that the daemon's loop starts and never waits for: at most one task a key, a fixed number of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import structlog

log = structlog.get_logger()


class Background:
    """A small pool of threads with named tasks. A task that fails is logged; whoever needs it asks again."""

    def __init__(self, *, threads: int = 4, on_done: Callable[[], None] = lambda: None) -> None:
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="background")
        self._running: dict[str, Future[None]] = {}
        self._lock = threading.Lock()
        self._on_done = on_done

    def start(self, key: str, task: Callable[[], None]) -> bool:
        """Run ``task`` unless one of the same key is under way; say whether it was started."""
        with self._lock:
            if key in self._running:
                return False
            self._running[key] = self._pool.submit(self._run, key, task)
            return True

    def is_running(self, key: str) -> bool:
        """Whether a task of this key is under way."""
        with self._lock:
            return key in self._running

    def is_busy(self) -> bool:
        """Whether any task is under way."""
        with self._lock:
            return bool(self._running)

    def close(self) -> None:
        """Wait for what runs; start nothing more."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, key: str, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # a task's failure must not take the daemon down
            log.exception("background task failed", action="background_failed", key=key, error=str(error))
        finally:
            with self._lock:
                self._running.pop(key, None)
            self._on_done()
