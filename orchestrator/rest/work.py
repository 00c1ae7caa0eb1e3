"""Routes of batches, triggers, decisions and jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from orchestrator.rest import bodies
from orchestrator.rest.depends import Actor, Before, Limit, Rekindle, RowId
from orchestrator.service.commands import batches, jobs, triggers
from orchestrator.service.records import (
    BatchDetail,
    BatchRecord,
    DecisionDetail,
    DecisionRecord,
    JobDetail,
    JobRecord,
    LogPiece,
    TriggerRecord,
    TriggerTest,
)
from orchestrator.service.views import batches as batch_views
from orchestrator.service.views import decisions as decision_views
from orchestrator.service.views import jobs as job_views
from orchestrator.service.views import triggers as trigger_views


def list_batches(
    rekindle: Rekindle, stream: str | None = None, state: str | None = None, limit: Limit = 100, before: Before = None
) -> list[BatchRecord]:
    """The newest batches, oldest of them first."""
    return batch_views.list_batches(rekindle, stream=stream, state=state, limit=limit, before=before)


def show_batch(rekindle: Rekindle, batch: RowId) -> BatchDetail:
    """One batch with its quarantined rows."""
    return batch_views.show_batch(rekindle, batch)


def hold_batch(rekindle: Rekindle, actor: Actor, batch: RowId, body: bodies.Reason) -> BatchRecord:
    """Keep a batch out of training and replay."""
    return batches.hold(rekindle, batch, reason=body.reason, actor=actor)


def release_batch(rekindle: Rekindle, actor: Actor, batch: RowId) -> BatchRecord:
    """Let a held batch feed training again."""
    return batches.release(rekindle, batch, actor=actor)


def list_triggers(rekindle: Rekindle, stream: str | None = None) -> list[TriggerRecord]:
    """Triggers with next fire and last verdict."""
    return trigger_views.list_triggers(rekindle, stream=stream)


def pause_triggers(rekindle: Rekindle, actor: Actor, name: str, trigger: str | None = None) -> list[TriggerRecord]:
    """Stop a trigger, or all of the stream's."""
    return triggers.pause(rekindle, name, trigger, actor=actor)


def resume_triggers(rekindle: Rekindle, actor: Actor, name: str, trigger: str | None = None) -> list[TriggerRecord]:
    """Let a trigger, or all of the stream's, fire again."""
    return triggers.resume(rekindle, name, trigger, actor=actor)


def try_triggers(rekindle: Rekindle, name: str, trigger: str | None = None) -> list[TriggerTest]:
    """What the triggers would say now; nothing is started."""
    return trigger_views.try_triggers(rekindle, name, trigger)


def list_decisions(
    rekindle: Rekindle, stream: str | None = None, limit: Limit = 100, before: Before = None
) -> list[DecisionRecord]:
    """The newest decisions, oldest of them first."""
    return decision_views.list_decisions(rekindle, stream=stream, limit=limit, before=before)


def show_decision(rekindle: Rekindle, decision: RowId) -> DecisionDetail:
    """One decision with its evidence."""
    return decision_views.show_decision(rekindle, decision)


def list_jobs(
    rekindle: Rekindle, stream: str | None = None, state: str | None = None, limit: Limit = 100, before: Before = None
) -> list[JobRecord]:
    """The newest jobs, oldest of them first."""
    return job_views.list_jobs(rekindle, stream=stream, state=state, limit=limit, before=before)


def show_job(rekindle: Rekindle, job: RowId) -> JobDetail:
    """One job with its attempts."""
    return job_views.show_job(rekindle, job)


def job_log(
    rekindle: Rekindle,
    job: RowId,
    attempt: Annotated[int | None, Query(ge=1)] = None,
    offset: Annotated[int, Query(ge=0, le=2**62)] = 0,
) -> LogPiece:
    """A piece of a job's log from a byte offset."""
    return job_views.job_log(rekindle, job, attempt=attempt, offset=offset)


def cancel_job(rekindle: Rekindle, actor: Actor, job: RowId) -> JobRecord:
    """Cancel a job; one that runs writes a checkpoint first."""
    return jobs.cancel(rekindle, job, actor=actor)


def retry_job(rekindle: Rekindle, actor: Actor, job: RowId) -> JobRecord:
    """Queue a failed or cancelled job again."""
    return jobs.retry(rekindle, job, actor=actor)
