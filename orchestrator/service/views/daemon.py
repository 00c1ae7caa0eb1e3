"""The daemon itself: who serves, and how many records there are in which state."""

from __future__ import annotations

import os
from importlib.metadata import version

from sqlalchemy import func, select

from orchestrator.app import App
from orchestrator.service.records import DaemonRecord
from storage.tables import Batch, Decision, Job, Stream, Version

COUNTED = {
    "streams": Stream.state,
    "batches": Batch.state,
    "decisions": Decision.state,
    "jobs": Job.state,
    "versions": Version.state,
}


def show_daemon(app: App) -> DaemonRecord:
    """Who serves, from where, under which epoch; the database by its kind only, since its URL may hold a password."""
    return DaemonRecord(
        version=version("rekindle"),
        pid=os.getpid(),
        home=str(app.home.root),
        database=app.database.dialect,
        epoch=app.epoch,
        cpus=app.resources.cpus,
        gpus=tuple(app.resources.gpus),
        faults=dict(app.faults),
    )


def state_counts(app: App) -> dict[str, dict[str, int]]:
    """Table -> state -> rows."""
    with app.database.read() as session:
        return {
            name: dict(session.execute(select(state, func.count()).group_by(state)).all())
            for name, state in COUNTED.items()
        }
