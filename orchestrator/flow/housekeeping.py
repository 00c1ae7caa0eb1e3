"""Beside the flow: what is no longer needed goes, at its own pace."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog
from sqlalchemy import select

from orchestrator.app import App
from orchestrator.clock import Clock
from orchestrator.flow import publication, records
from orchestrator.flow.alerts import alert
from orchestrator.importing import JOB
from storage import collect as collecting
from storage import events
from storage import scrub as scrubbing
from storage.collect import Collected
from storage.scrub import Damage
from storage.states import JOB_UNFINISHED
from storage.tables import Attempt, Job, Stream

EVERY_S = 600.0
COLLECT_EVERY_S = 3600.0
SCRUB_EVERY_S = 3600.0
KEEP_MODELS_S = 86_400.0
"""A model folder that was put together for jobs and that no unfinished job names goes after a day."""
log = structlog.get_logger()


def every(clock: Clock) -> Callable[[App], bool]:
    """A step that starts the tidying that is due, in the background."""
    tasks: list[tuple[str, float, Callable[[App], None]]] = [
        ("sweep", EVERY_S, _sweep),
        ("gc", COLLECT_EVERY_S, _collect),
        ("scrub", SCRUB_EVERY_S, scrub),
    ]
    due = {name: clock.monotonic() + interval for name, interval, _ in tasks}

    def step(app: App) -> bool:
        for name, interval, task in tasks:
            if clock.monotonic() >= due[name]:
                due[name] = clock.monotonic() + interval
                app.background.start(name, partial(task, app))
        return False

    return step


def collect(app: App, *, dry_run: bool) -> Collected:
    """Mark bytes that nothing needs, and delete those marked an hour ago and still not needed.

    Raises:
        LeaseLost: this daemon no longer leads.
    """
    return collecting.collect(
        app.database, app.store, epoch=app.epoch, keep_rejected=_retention(app), dry_run=dry_run, at=app.clock.now()
    )


def _collect(app: App) -> None:
    done = collect(app, dry_run=False)
    figures = {"marked": len(done.marked), "deleted": len(done.deleted), "deleted_bytes": done.deleted_bytes}
    log.info("collected", action="collected", **figures)
    if done.deleted:
        with app.database.write() as session:
            events.record(
                session,
                stream_id=None,
                subject="home",
                subject_id="home",
                action="gc",
                actor="daemon",
                reason="nothing needs these bytes",
                details=figures,
            )


def scrub(app: App) -> None:
    """Read a few objects of the store again; damage is an alert that names what it concerns."""
    for damage in scrubbing.scrub(app.database, app.store):
        for stream_id, reason in _words(damage):
            alert(app, reason, stream_id=stream_id)


def _words(damage: Damage) -> list[tuple[str | None, str]]:
    """What to say of damage, a stream at a time."""
    if not damage.affected:
        return [(None, damage.problem)]
    return [(stream_id, f"{', '.join(names)}: {damage.problem}") for stream_id, names in damage.affected.items()]


def _sweep(app: App) -> None:
    publication.repair(app)
    publication.sweep(app)
    wanted = _wanted(app)
    for folder in (app.home.cache / "models").glob("*"):
        if folder.name not in wanted and time.time() - folder.stat().st_ctime > KEEP_MODELS_S:
            shutil.rmtree(folder, ignore_errors=True)


def _wanted(app: App) -> str:
    """All that unfinished jobs say: their specs, what earlier jobs of their plans left, and the orders of attempts."""
    unfinished = Job.state.in_(JOB_UNFINISHED)
    plans = select(Job.plan_id).where(unfinished, Job.plan_id.is_not(None))
    with app.database.read() as session:
        said = list(session.scalars(select(Job.spec).where(unfinished)))
        said += [left for left in session.scalars(select(Job.artifacts).where(Job.plan_id.in_(plans))) if left]
        attempts = session.scalars(
            select(Attempt.directory).join(Job, Job.id == Attempt.job_id).where(unfinished)
        ).all()
    return json.dumps(said) + "".join(_order(Path(directory)) for directory in attempts)


def _order(directory: Path) -> str:
    try:
        return (directory / JOB).read_text(encoding="utf-8")
    except OSError:  # not begun yet, or on another machine
        return ""


def _retention(app: App) -> dict[str, timedelta]:
    """How long each stream keeps the bytes of rejected candidates."""
    with app.database.read() as session:
        return {
            stream_id: timedelta(days=records.settings_of(session, stream_id).retention.keep_rejected_days)
            for stream_id in session.scalars(select(Stream.id))
        }
