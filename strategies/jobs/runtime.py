"""Life signs of a job process: heartbeat, progress, cancellation, orphan watch. Standard library only.

A heartbeat is written before anything heavy is imported, so that a slow start is not taken for a dead one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from strategies.processes import boot_id, look

HEARTBEAT_S = 2.0
PROGRESS_S = 0.5


class Stopped(Exception):  # noqa: N818 - says what happened; it is not an error of the program
    """Somebody asked the job to stop, or nobody adopted it; state is on disk."""


class Runtime:
    """What a running job shows to the outside, kept up to date by one background thread.

    The job only assigns plain attributes (``phase``, ``step``, ``loss`` …); the thread does the writing.
    """

    def __init__(self, directory: Path, *, orphan_after_s: float = 600.0) -> None:
        self.directory = directory
        self.workspace = directory
        """Where the present work puts its files: a part of a job has a folder of its own."""
        self.orphan_after_s = orphan_after_s
        self.phase = "starting"
        self.step = 0
        self.steps = 0
        self.tokens = 0
        self.tokens_per_s: float | None = None
        self.loss: float | None = None
        self.lr: float | None = None
        self.eta_s: float | None = None
        self.stop_reason: str | None = None
        self._identity = _identity()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)
        self._written: dict[str, Any] = {}
        self._adopted: tuple[int | None, float] = (None, time.monotonic())
        self._entered = (time.monotonic(), 0, 0)

    def start(self) -> None:
        """Write the first heartbeat, listen for SIGTERM, start the thread."""
        self._beat()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_signal)
        self._thread.start()

    def close(self) -> None:
        """Write the last heartbeat and progress and end the thread."""
        self._closing.set()
        self._thread.join(timeout=10)
        self._beat()
        self._report()

    def stop(self, reason: str) -> None:
        """Ask the job to write a checkpoint and end."""
        self.stop_reason = self.stop_reason or reason

    def check(self) -> None:
        """Raise :class:`Stopped` if the job was asked to stop."""
        if self.stop_reason is not None:
            raise Stopped(self.stop_reason)

    def enter(self, phase: str, *, stoppable: bool = True, **values: Any) -> None:
        """Begin a phase: shown in heartbeat, progress and log. Short last phases are not stoppable."""
        self.phase = phase
        for name, value in values.items():
            setattr(self, name, value)
        self._entered = (time.monotonic(), self.step, self.tokens)
        self.tokens_per_s = self.eta_s = None
        if stoppable:
            self.check()
        say(phase)

    @contextlib.contextmanager
    def working_in(self, folder: Path) -> Iterator[None]:
        """A part of the job puts its files into ``folder``; life signs stay where they are."""
        before, self.workspace = self.workspace, folder
        try:
            yield
        finally:
            self.workspace = before

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stop("SIGTERM")

    def _watch(self) -> None:
        next_beat = time.monotonic() + HEARTBEAT_S
        while not self._closing.wait(PROGRESS_S):
            if (self.directory / "cancel").exists():
                self.stop("cancelled")
            self._watch_adoption()
            self._report()
            if time.monotonic() >= next_beat:
                self._beat()
                next_beat += HEARTBEAT_S

    def _watch_adoption(self) -> None:
        # The file's age is counted on this process's own clock: a wall clock that jumps must not end a job.
        try:
            touched = (self.directory / "adopted.json").stat().st_mtime_ns
        except OSError:
            touched = None
        if touched is not None and touched != self._adopted[0]:
            self._adopted = (touched, time.monotonic())
        elif time.monotonic() - self._adopted[1] > self.orphan_after_s:
            self.stop("nobody adopted this job")

    def _beat(self) -> None:
        beat = {**self._identity, "step": self.step, "phase": self.phase, "time": time.time()}
        _replace(self.directory / "heartbeat.json", beat)

    def _measure_speed(self) -> None:
        since, step, tokens = self._entered
        elapsed_s, steps = time.monotonic() - since, self.step - step
        if steps > 0:
            self.tokens_per_s = round((self.tokens - tokens) / elapsed_s, 1)
            self.eta_s = round((self.steps - self.step) * elapsed_s / steps, 1)

    def _report(self) -> None:
        self._measure_speed()
        progress = {
            "phase": self.phase,
            "step": self.step,
            "steps": self.steps,
            "tokens": self.tokens,
            "tokens_per_s": self.tokens_per_s,
            "loss": self.loss,
            "lr": self.lr,
            "eta_s": self.eta_s,
        }
        if _without_clock(progress) != _without_clock(self._written):
            _replace(self.directory / "progress.json", progress)
            self._written = progress


def _identity() -> dict[str, Any]:
    """What names this process for good."""
    own = look(os.getpid())
    assert own is not None
    return {"boot_id": boot_id(), "pid": os.getpid(), "process_started": own.started}


def _without_clock(progress: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in progress.items() if name not in {"tokens_per_s", "eta_s"}}


def say(line: str) -> None:
    """One line in the job's log."""
    print(line, flush=True)


def _replace(path: Path, value: dict[str, Any]) -> None:
    # Life signs are worthless after a power cut, so they are renamed into place but not synced.
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(json.dumps(value))
        beside.replace(path)
    except OSError as error:
        say(f"cannot write {path.name}: {error}")
