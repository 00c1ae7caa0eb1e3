"""Beside the flow: what is no longer needed goes, at its own pace."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy import select

from orchestrator.app import App
from orchestrator.clock import Clock
from orchestrator.flow import publication, records
from storage import collect as collecting
from storage.collect import Collected
from storage.tables import Job, Stream

EVERY_S = 600.0
COLLECT_EVERY_S = 3600.0
KEEP_MODELS_S = 86_400.0
"""A model folder that was put together for jobs and that no unfinished job names goes after a day."""
UNFINISHED = ("queued", "submitted", "running", "lost")
log = structlog.get_logger()


def every(clock: Clock) -> Callable[[App], bool]:
    """A step that starts the tidying that is due, in the background."""
    tasks: list[tuple[str, float, Callable[[App], None]]] = [
        ("sweep", EVERY_S, _sweep),
        ("gc", COLLECT_EVERY_S, _collect),
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
    log.info(
        "collected", action="collected", marked=len(done.marked), deleted=len(done.deleted), bytes=done.deleted_bytes
    )


def _sweep(app: App) -> None:
    publication.sweep(app)
    with app.database.read() as session:
        wanted = json.dumps([job.spec for job in session.scalars(select(Job).where(Job.state.in_(UNFINISHED)))])
    for folder in (app.home.cache / "models").glob("*"):
        if folder.name not in wanted and time.time() - folder.stat().st_ctime > KEEP_MODELS_S:
            shutil.rmtree(folder, ignore_errors=True)


def _retention(app: App) -> dict[str, timedelta]:
    """How long each stream keeps the bytes of rejected candidates."""
    with app.database.read() as session:
        return {
            stream_id: timedelta(days=records.settings_of(session, stream_id).retention.keep_rejected_days)
            for stream_id in session.scalars(select(Stream.id))
        }
