"""Cancelling jobs and trying them again."""

from __future__ import annotations

from orchestrator.app import App
from orchestrator.jobs import queue
from orchestrator.service.records import JobRecord
from orchestrator.service.views import common
from orchestrator.service.views.jobs import job_records


def cancel(app: App, job_id: int, *, actor: str) -> JobRecord:
    """Cancel a job: at once while it waits, after a checkpoint while it runs.

    Raises:
        NotFound: no such job.
        Conflict: it has ended.
    """
    with app.database.write() as session:
        job = common.find_job(session, job_id)
        queue.cancel(session, job, actor=actor, reason="asked for")
        record = job_records(session, [job])[0]
    app.wake.set()
    return record


def retry(app: App, job_id: int, *, actor: str) -> JobRecord:
    """Queue a failed or cancelled job again.

    Raises:
        NotFound: no such job.
        Conflict: it has neither failed nor been cancelled, or its plan or decision is closed.
    """
    with app.database.write() as session:
        job = common.find_job(session, job_id)
        queue.retry(session, job, actor=actor)
        record = job_records(session, [job])[0]
    app.wake.set()
    return record
