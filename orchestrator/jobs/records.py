"""What SQL knows of jobs, read in a few queries and shaped for the lifecycle."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.jobs.lifecycle import AttemptRecord, JobRecord, Limits
from storage.states import JOB_GAVE_UP, JOB_UNFINISHED
from storage.tables import Attempt, Job, Stream
from strategies.contract import EXIT_CANCELLED

NeedsState = Literal["met", "waiting", "broken"]


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Whether the siblings that a job stands on have succeeded."""

    state: NeedsState
    reason: str
    siblings: tuple[Job, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Case:
    """One unfinished job with its attempts, newest last."""

    job: Job
    stream: str
    attempts: tuple[Attempt, ...]
    needs: Needs

    @property
    def newest(self) -> Attempt | None:
        """The attempt that is under way; none while the job is queued."""
        if self.job.state == "queued" or not self.attempts:
            return None
        return self.attempts[-1]


def host_name() -> str:
    """This machine, as attempts name it."""
    return socket.gethostname()


def unfinished(session: Session) -> list[Case]:
    """Every job that is not over, oldest first."""
    rows = session.execute(
        select(Job, Stream.name)
        .join(Stream, Stream.id == Job.stream_id)
        .where(Job.state.in_(JOB_UNFINISHED))
        .order_by(Job.id)
    ).all()
    attempts = attempts_of(session, [job.id for job, _ in rows])
    return [
        Case(job=job, stream=name, attempts=tuple(attempts[job.id]), needs=needs_of(session, job)) for job, name in rows
    ]


def attempts_of(session: Session, jobs: Sequence[int]) -> dict[int, list[Attempt]]:
    """The attempts of these jobs, oldest first."""
    found: dict[int, list[Attempt]] = defaultdict(list)
    if jobs:
        query = select(Attempt).where(Attempt.job_id.in_(jobs)).order_by(Attempt.job_id, Attempt.number)
        for attempt in session.scalars(query):
            found[attempt.job_id].append(attempt)
    return found


def needs_of(session: Session, job: Job) -> Needs:
    """What has become of the siblings that the job needs: those of its plan, or of its decision outside a plan."""
    if not job.needs or job.state != "queued":
        return Needs(state="met", reason="")
    same = (Job.plan_id == job.plan_id) if job.plan_id is not None else (Job.decision_id == job.decision_id)
    siblings = tuple(session.scalars(select(Job).where(same, Job.name.in_(job.needs)).order_by(Job.id)))
    for one in siblings:
        if one.state in JOB_GAVE_UP:
            return Needs(state="broken", reason=f"needs job {one.id} ({one.name}), which {_ended(one)}")
    missing = sorted({*job.needs} - {one.name for one in siblings if one.state == "succeeded"})
    missing += [one.name for one in siblings if one.state != "succeeded" and one.name not in missing]
    if missing:
        return Needs(state="waiting", reason=f"waits for {', '.join(missing)}")
    return Needs(state="met", reason="", siblings=siblings)


def counts(attempts: Iterable[Attempt]) -> tuple[int, int]:
    """How many ended attempts count as failures, and how many ended without being anybody's failure."""
    ended = [attempt for attempt in attempts if attempt.state in ("failed", "lost")]
    free = sum(_is_free(attempt) for attempt in ended)
    return len(ended) - free, free


def counted_failures(attempts: Iterable[Attempt], limits: Limits) -> int:
    """Failures so far, with the free ends beyond the limit among them."""
    failures, free = counts(attempts)
    return failures + max(0, free - limits.free_requeues)


def record_of(case: Case, host: str) -> JobRecord:
    """The job as the lifecycle sees it."""
    job, newest = case.job, case.newest
    failures, free = counts(case.attempts)
    return JobRecord(
        id=job.id,
        state=job.state,
        timeout_s=job.timeout_s,
        max_attempts=job.max_attempts,
        failures=failures,
        yields=free,
        cancel_requested=job.cancel_requested,
        cancel_reason=job.error if job.cancel_requested and job.error else "cancelled on request",
        not_before=job.not_before,
        attempt=None
        if newest is None
        else AttemptRecord(number=newest.number, epoch=newest.epoch, local=newest.host == host),
    )


def _is_free(attempt: Attempt) -> bool:
    """A checkpoint written on SIGTERM or for want of a daemon, or a process that never started."""
    return attempt.state == "lost" and (attempt.exit_code == EXIT_CANCELLED or attempt.pid is None)


def _ended(job: Job) -> str:
    return "failed" if job.state == "failed" else "was cancelled"
