"""Live progress on stderr: bars on a terminal, a line a change elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.cli.output import clean, note

if TYPE_CHECKING:
    from rich.progress import Progress

Record = TypeVar("Record")
POLL_S = 0.5
BIG_FILE_BYTES = 8 * 1024 * 1024
"""Smaller files are sent before a bar could be read."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """What is going on, and how far it is; ``steps`` 0: not known."""

    text: str
    step: int = 0
    steps: int = 0
    facts: str = ""


def wait(
    ask: Callable[[], Record], *, until: Callable[[Record], bool], tell: Callable[[Record], Status], left: str
) -> Record:
    """Ask again and again until it is so; the work goes on in the daemon even if nobody waits.

    ``left`` is what someone is told who stops waiting with Ctrl-C: what goes on, and how to follow it.
    """
    try:
        with showing() as show:
            while True:
                record = ask()
                if until(record):
                    return record
                show(tell(record))
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        note(f"stopped waiting; {left}")
        raise


@contextlib.contextmanager
def busy(doing: str, *, left: str) -> Iterator[None]:
    """Show that one long request is under way, which tells no steps; ``left`` as for :func:`wait`."""
    try:
        with showing() as show:
            show(Status(text=doing))
            yield
    except KeyboardInterrupt:
        note(f"stopped waiting; {left}")
        raise


@contextlib.contextmanager
def sending(name: str, size: int) -> Iterator[Callable[[int], None]]:
    """A bar for a big file that is being sent; the value takes the bytes that went."""
    if size < BIG_FILE_BYTES or not sys.stderr.isatty():
        yield lambda _count: None
        return
    with _bars() as bars:
        task = bars.add_task(clean(name), total=size, facts="")
        yield lambda count: bars.advance(task, count)


def job_status(job: dict[str, Any]) -> Status:
    """Phase, step, tokens a second, loss and time left of a job."""
    progress = job["progress"]
    facts = [
        f"{progress['tokens_per_s']:,.0f} tokens/s" if progress.get("tokens_per_s") else "",
        f"loss {progress['loss']:.3f}" if progress.get("loss") is not None else "",
        f"{_duration(progress['eta_s'])} left" if progress.get("eta_s") is not None else "",
    ]
    phase = f", {progress['phase']}" if progress.get("phase") else ""
    return Status(
        text=f"{job['kind']} job {job['id']} {job['state']}{phase}",
        step=int(progress.get("step") or 0),
        steps=int(progress.get("steps") or 0),
        facts=", ".join(fact for fact in facts if fact),
    )


@contextlib.contextmanager
def showing() -> Iterator[Callable[[Status], None]]:
    """What shows a status: a bar on a terminal, a line a change elsewhere."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    with _bars() as bars:
        task = bars.add_task("", total=None, facts="")

        def show(status: Status) -> None:
            total = status.steps or None
            bars.update(
                task, description=clean(status.text), total=total, completed=status.step, facts=clean(status.facts)
            )

        yield show


def _lines() -> Callable[[Status], None]:
    """A line whenever something else is going on; steps alone are no news."""
    last = ""

    def show(status: Status) -> None:
        nonlocal last
        if status.text != last:
            last = status.text
            note(status.text)

    return show


def _bars() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}", markup=False),
        console=Console(stderr=True),
        transient=True,
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
