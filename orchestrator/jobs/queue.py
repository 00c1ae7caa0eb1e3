"""What the flow and the faces may ask of jobs: queue, cancel, retry. The supervisor does the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from orchestrator.errors import Conflict
from orchestrator.jobs import records
from orchestrator.jobs.lifecycle import Limits
from orchestrator.settings import StreamSettings
from storage import events
from storage.database import now
from storage.moves import move
from storage.states import JOB_GAVE_UP, JOB_UNFINISHED
from storage.tables import Decision, Job, Plan
from strategies.contract import ModelFiles, QueuedSpec, Work


@dataclass(frozen=True, kw_only=True)
class Share:
    """A job's share of the machine, and its limits."""

    cpus: int = 1
    gpus: int = 0
    priority: int = 0
    timeout_s: int = 24 * 3600
    max_attempts: int = 3


def queue(
    session: Session,
    *,
    stream_id: str,
    name: str,
    key: str,
    spec: QueuedSpec,
    needs: Sequence[str] = (),
    decision_id: int | None = None,
    plan_id: int | None = None,
    version_id: int | None = None,
    share: Share | None = None,
) -> Job:
    """A new job, or the one that was queued before under the same key."""
    existing = session.scalar(select(Job).where(Job.key == key))
    if existing is not None:
        return existing
    job = Job(
        stream_id=stream_id,
        kind=spec.work.kind,
        name=name,
        key=key,
        spec=spec.model_dump(mode="json"),
        needs=list(needs),
        decision_id=decision_id,
        plan_id=plan_id,
        version_id=version_id,
        **asdict(share or Share()),
        state="queued",
        attempt=0,
        progress={},
        cancel_requested=False,
        created_at=now(),
    )
    session.add(job)
    session.flush()
    _record(session, job, action="queue", actor="daemon", reason=f"{job.kind} job {name}")
    return job


def spec(settings: StreamSettings, *, model: ModelFiles, work: Work, seed: int | None = None) -> QueuedSpec:
    """What a job of the stream is told: its symbolic files and its work, in what the settings say of every job.

    ``seed`` is the settings' own unless another is given.
    """
    return QueuedSpec(
        task=settings.task,
        seed=settings.training.seed if seed is None else seed,
        threads=settings.resources.cpus,
        device="cuda" if settings.resources.gpus else "auto",
        model=model,
        work=work,
    )


def share_of(settings: StreamSettings, *, priority: int = 0) -> Share:
    """What the stream's settings give each of its jobs; ``priority`` is added to that of the stream."""
    return Share(
        cpus=settings.resources.cpus,
        gpus=settings.resources.gpus,
        priority=settings.resources.priority + priority,
        timeout_s=int(settings.budget.max_hours * 3600),
        max_attempts=settings.budget.max_attempts,
    )


def cancel(session: Session, job: Job, actor: str, reason: str) -> None:
    """End the job: at once while it is queued, through the supervisor once it has an attempt. Twice is no harm.

    Raises:
        Conflict: the job has already ended otherwise.
    """
    if job.state == "cancelled":
        return
    if job.state not in JOB_UNFINISHED:
        raise Conflict(f"job {job.id} has already {job.state}; only an unfinished job can be cancelled")
    if job.state == "queued":
        values: dict[str, Any] = {"cancel_requested": True, "error": reason, "finished_at": now()}
        move(session, job, "cancelled", actor=actor, reason=reason, **values)
    elif not job.cancel_requested:
        _change(session, job, cancel_requested=True, error=reason)
        _record(session, job, action="cancel", actor=actor, reason=reason)


def retry(session: Session, job: Job, actor: str) -> None:
    """Give a failed or cancelled job one more attempt, which goes on from its last checkpoint.

    Raises:
        Conflict: the job has ended otherwise or not at all, or its plan or decision is closed.
    """
    if job.state not in JOB_GAVE_UP:
        raise Conflict(f"job {job.id} is {job.state}; only a failed or cancelled job can be tried again")
    if job.plan_id is not None and session.get_one(Plan, job.plan_id).state != "open":
        raise Conflict(f"the plan of job {job.id} is closed; start a new decision with `rekindle retrain`")
    if job.decision_id is not None and session.get_one(Decision, job.decision_id).state == "closed":
        raise Conflict(f"the decision of job {job.id} is closed; start a new one with `rekindle retrain`")
    failures = records.counted_failures(records.attempts_of(session, [job.id])[job.id], Limits())
    move(
        session,
        job,
        "queued",
        actor=actor,
        reason="tried again on request",
        max_attempts=max(job.max_attempts, failures + 1),
        cancel_requested=False,
        not_before=None,
        finished_at=None,
    )


def _change(session: Session, job: Job, **values: Any) -> None:
    """Change the row itself: ``job`` may come from an earlier session."""
    session.execute(update(Job).where(Job.id == job.id, Job.state == job.state).values(**values))
    for name, value in values.items():
        setattr(job, name, value)


def _record(session: Session, job: Job, *, action: str, actor: str, reason: str) -> None:
    events.record(
        session, stream_id=job.stream_id, subject="job", subject_id=job.id, action=action, actor=actor, reason=reason
    )
