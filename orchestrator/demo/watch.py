"""Progress bars of what the daemon is doing, until it is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from orchestrator.demo.shell import DemoError, Shell
from storage.states import JOB_GAVE_UP

POLL_S = 1.0
WAIT_S = 900.0
Record = dict[str, Any]


def bars(console: Console) -> Progress:
    """Spinner, name, bar, facts, time."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[facts]:<38}"),
        TimeElapsedColumn(),
        console=console,
    )


class Watcher:
    """Follows a stream's jobs on the screen."""

    def __init__(self, shell: Shell, stream: str) -> None:
        self._shell = shell
        self._stream = stream
        self._seen: set[int] = set()

    def until(self, done: Callable[[], Record | None]) -> Record:
        """Draw the bars of the stream's new jobs until ``done`` answers.

        Raises:
            DemoError: it takes too long.
        """
        deadline = time.monotonic() + WAIT_S
        with bars(self._shell.console) as progress:
            drawn: dict[int, TaskID] = {}
            while time.monotonic() < deadline:
                self._draw(progress, drawn)
                found = done()
                if found is not None:
                    self._draw(progress, drawn)
                    self._seen |= drawn.keys()
                    return found
                time.sleep(POLL_S)
        raise DemoError(f"nothing came of it within {WAIT_S:.0f} s; `rekindle job list {self._stream}` shows the jobs")

    def _draw(self, progress: Progress, drawn: dict[int, TaskID]) -> None:
        for job in self._jobs():
            if job["id"] not in drawn:
                drawn[job["id"]] = progress.add_task(job["kind"], total=None, facts="")
            completed, total = _steps(job)
            progress.update(drawn[job["id"]], completed=completed, total=total, facts=_facts(job))
            if job["state"] in JOB_GAVE_UP:
                raise DemoError(f"job {job['id']} ({job['kind']}) {job['state']}: {job['error']}")

    def _jobs(self) -> list[Record]:
        return [job for job in self._shell.ask("job", "list", self._stream) if job["id"] not in self._seen]

    def ended(self) -> None:
        """Draw nothing more of the jobs that are there now."""
        self._seen |= {job["id"] for job in self._jobs()}


def _steps(job: Record) -> tuple[float, float | None]:
    if job["state"] == "succeeded":
        return 1, 1
    progress = job["progress"] or {}
    return float(progress.get("step") or 0), float(progress.get("steps") or 0) or None


def _facts(job: Record) -> str:
    progress = job["progress"] or {}
    facts = [] if job["state"] in ("running", "submitted") else [str(job["state"])]
    if job["state"] == "running":
        facts.append(str(progress.get("phase") or ""))
    if progress.get("loss") is not None:
        facts.append(f"loss {progress['loss']:.3f}")
    if progress.get("tokens_per_s"):
        facts.append(f"{progress['tokens_per_s']:,.0f} tokens/s")
    return ", ".join(fact for fact in facts if fact)
