"""Between gate and refusal: a candidate that only forgot goes some steps back towards the live version.

The repair is a job without training that looks at ``select`` halves alone. What it finds is a candidate of its own,
which the ordinary gate judges on ``judge``. A candidate is repaired once, and what came of a repair never again.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.flow import evaluation, merge_job, records
from orchestrator.jobs import queue
from orchestrator.settings import GateSettings
from storage.states import JOB_GAVE_UP, JOB_UNFINISHED
from storage.tables import Decision, EvalSet, Job, Stream, Verdict, Version
from strategies.contract import MergeSet
from strategies.settings.merging import RepairMerge

JOB = "repair"
MARGIN = 0.5
"""Share of the gate's tolerances that a repair may use: bounds on ``judge`` are wider than a mean on ``select``."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What has come of a repair so far: under way, a new candidate, or the reason why there is none."""

    waiting: bool = False
    made: Version | None = None
    reason: str = ""


def advance(app: App, session: Session, *, candidate: Version, live: Version, verdict: Verdict) -> Outcome | None:
    """Take the repair of a refused candidate as far as it goes; None where there is none to be had."""
    stream = session.get_one(Stream, candidate.stream_id)
    job = session.scalar(select(Job).where(Job.key == _key(candidate)))
    if job is None:
        job = _begin(app, session, stream, candidate, live, verdict)
    if job is None:
        return None
    if job.state in JOB_GAVE_UP:
        return Outcome(reason=f"repair job {job.id} {job.state}: {job.error or 'no reason given'}")
    if job.state != "succeeded":
        return Outcome(waiting=True)
    return _end(app, session, candidate, job)


def drop(session: Session, decision: Decision, reason: str) -> None:
    """A decision that ended otherwise needs no repair any more."""
    jobs = select(Job).where(Job.decision_id == decision.id, Job.name == JOB, Job.state.in_(JOB_UNFINISHED))
    for job in session.scalars(jobs):
        queue.cancel(session, job, actor="daemon", reason=reason)


def _key(candidate: Version) -> str:
    return f"repair:{candidate.id}"


def _begin(
    app: App, session: Session, stream: Stream, candidate: Version, live: Version, verdict: Verdict
) -> Job | None:
    settings = records.settings_of(session, stream.id)
    wanted = settings.gate.repair and verdict.details["only_forgot"]
    if not wanted or candidate.decision_id is None or not _is_repairable(session, candidate, live):
        return None
    sets = _sets(session, candidate, settings.gate)
    if not any(one.role == "new" for one in sets):
        return None
    method = RepairMerge()
    asked = merge_job.Wanted(
        method=method,
        base=live,
        members=[candidate],
        weights=[1.0],
        into=merge_job.form_of(session, live, [candidate], method),
        sets=sets,
    )
    spec = merge_job.spec_of(session, asked, settings)
    app.wake.set()
    return merge_job.queue_merge(
        session, stream, spec, settings, name=JOB, key=_key(candidate), decision_id=candidate.decision_id
    )


def _is_repairable(session: Session, candidate: Version, live: Version) -> bool:
    banks = [one for one in (candidate, live) if merge_job.is_bank(session, one)]
    return not banks and not merge_job.was_merged(session, candidate)


def _sets(session: Session, candidate: Version, gate: GateSettings) -> list[MergeSet]:
    """What the gate judged the candidate on, as a repair looks at it."""
    new = evaluation.own_batches(session, candidate)
    settings = records.settings_of(session, candidate.stream_id)
    scored = records.evaluations_of(session, candidate.id, evaluation.settings_hash(settings))

    def record(one: EvalSet) -> MergeSet:
        file = evaluation.eval_file(one)
        if one.batch_id in new:
            return MergeSet(file=file, role="new")
        return MergeSet(file=file, role="old", tolerance=MARGIN * gate.tolerance(scored[one.content_hash].metric))

    found = merge_job.with_select(session, evaluation.judged_sets(session, candidate))
    return [record(one) for one in found if one.content_hash in scored]


def _end(app: App, session: Session, candidate: Version, job: Job) -> Outcome:
    facts = records.result_of(job).facts
    if not job.artifacts:
        count = len(facts.get("trials", ()))
        return Outcome(reason=f"none of {count} steps back by repair job {job.id} gained without forgetting")
    made = merge_job.make_version(app, session, job, strategy=JOB, carried=_carried(session, candidate))
    return Outcome(made=made, reason=f"repaired by job {job.id} ({facts['chosen']})")


def _carried(session: Session, candidate: Version) -> dict[str, str]:
    """Where its sources stood, for the next stage. A trunk and its moments are not those of the repaired weights."""
    artifacts = records.artifacts_of(session, candidate.id)
    kept = () if "state/trunk" in artifacts else ("state/mixing",)
    return {role: artifacts[role] for role in kept if role in artifacts}
