"""Step four: a plan's jobs are queued, and when all of them have succeeded their result is a candidate version."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.flow import evaluation, records
from orchestrator.jobs import queue
from orchestrator.settings import StreamSettings
from storage import chain, manifests
from storage.states import JOB_GAVE_UP, JOB_UNFINISHED, DecisionResult
from storage.tables import (
    Attempt,
    Batch,
    Decision,
    EvalSet,
    Job,
    Plan,
    Version,
    VersionArtifact,
    VersionBatch,
    VersionParent,
)
from strategies.contract import Consumed, EvalFile, ModelFiles, QueuedSpec, SourceFile, Template
from strategies.contract import Plan as PlanRecord
from strategies.contract.graph import Artifact, along, needs, order, parse_reference
from strategies.planning.resolution import resolve


def source_file(batch: Batch, role: Literal["new", "old"]) -> SourceFile:
    """The symbolic snapshot of a batch."""
    return SourceFile(
        name=records.source_name(batch),
        batch=batch.id,
        path=f"object:{batch.snapshot_hash}",
        sha256=batch.snapshot_hash,
        role=role,
    )


def queue_plan(
    session: Session, *, decision: Decision, plan: Plan, record: PlanRecord, settings: StreamSettings
) -> list[Job]:
    """One row for each job of the plan, in an order in which their references can be resolved."""
    return [
        _queue_job(session, decision=decision, plan=plan, name=name, record=record, settings=settings)
        for name in order(record)
    ]


def advance(app: App, session: Session, decision: Decision) -> bool:
    """Make the candidate once the plan's jobs have succeeded; end the decision when one of them cannot."""
    plan = session.scalar(select(Plan).where(Plan.decision_id == decision.id))
    if plan is None or plan.state != "open":
        return False
    jobs = records.jobs_of_plan(session, plan.id)
    ended = next((job for job in jobs if job.state in JOB_GAVE_UP), None)
    if ended is not None:
        return _give_up(app, session, decision, jobs, ended)
    made = session.scalar(select(Version.id).where(Version.decision_id == decision.id))
    if made is not None or any(job.state != "succeeded" for job in jobs):
        return False
    _make_candidate(app, session, decision, plan, jobs)
    return True


def next_number(session: Session, stream_id: str) -> int:
    """The number of the stream's next version."""
    return int(session.scalar(select(func.max(Version.number)).where(Version.stream_id == stream_id)) or 0) + 1


def directory_of(session: Session, job: Job) -> Path:
    """The directory of a job's newest attempt."""
    newest = session.scalars(
        select(Attempt).where(Attempt.job_id == job.id).order_by(Attempt.number.desc()).limit(1)
    ).one()
    return Path(newest.directory)


def _queue_job(
    session: Session, *, decision: Decision, plan: Plan, name: str, record: PlanRecord, settings: StreamSettings
) -> Job:
    template = record.jobs[name]
    return queue.queue(
        session,
        share=queue.share_of(settings),
        stream_id=decision.stream_id,
        name=name,
        key=f"plan:{plan.id}:{name}",
        spec=_spec(session, decision, template, settings),
        needs=needs(record, name),
        decision_id=decision.id,
        plan_id=plan.id,
    )


def _spec(session: Session, decision: Decision, template: Template, settings: StreamSettings) -> QueuedSpec:
    model, work = resolve(template, SymbolicFiles(session, decision, settings))
    return queue.spec(settings, model=model, work=work, seed=template.training.seed)


def forbidden(session: Session, stream_id: str) -> tuple[EvalFile, ...]:
    """Eval sets that no training row may be in: all but pools, whose rows stand in the batches' own sets."""
    query = select(EvalSet).where(EvalSet.stream_id == stream_id, EvalSet.kind != "pool").order_by(EvalSet.id)
    return tuple(evaluation.eval_file(one) for one in session.scalars(query))


@dataclass(frozen=True)
class SymbolicFiles:
    """Symbolic files, as of the decision: what they stand for is looked up when the job is submitted."""

    session: Session
    decision: Decision
    settings: StreamSettings

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.decision.signals.get("labels", ()))

    def version(self, owner: str) -> ModelFiles:
        origin = _origin(self.session, self.decision, owner)
        return evaluation.model_of(self.session, origin, self.settings)

    def artifact(self, artifact: Artifact) -> str:
        if artifact.is_job:
            return f"@{artifact.of}/{artifact.role}"
        origin = _origin(self.session, self.decision, artifact.of)
        return f"manifest:{records.artifacts_of(self.session, origin.id)[artifact.role]}"

    def batches(self, names: Collection[str]) -> dict[str, SourceFile]:
        """A batch held since the decision is left to the job's failure, never drawn."""
        found = self.session.scalars(
            select(Batch).where(
                Batch.stream_id == self.decision.stream_id,
                Batch.state.in_(("pending", "trained")),
                Batch.kind != "fixed",
            )
        )
        named = {records.source_name(batch): batch for batch in found}
        return {name: source_file(batch, "old") for name, batch in named.items() if name in names}

    def sets(self, names: Collection[str]) -> tuple[EvalFile, ...]:
        active = records.active_sets(self.session, self.decision.stream_id)
        return tuple(evaluation.eval_file(one) for one in active if one.name in names)

    def forbidden(self) -> tuple[EvalFile, ...]:
        return forbidden(self.session, self.decision.stream_id)


def _origin(session: Session, decision: Decision, owner: str) -> Version:
    if owner == "base":
        return records.base_of(session, decision.stream_id)
    return session.get_one(Version, decision.parent_version_id)


def _give_up(app: App, session: Session, decision: Decision, jobs: Sequence[Job], ended: Job) -> bool:
    outcome = (
        f"job {ended.id} {ended.state}: {ended.error or 'no reason given'}; `rekindle job logs {ended.id}` shows why"
    )
    for job in jobs:
        if job.state in JOB_UNFINISHED:
            queue.cancel(session, job, actor="daemon", reason=f"job {ended.id} {ended.state}")
    result: DecisionResult = "cancelled" if ended.state == "cancelled" else "failed"
    evaluation.close_decision(app, session, decision.id, result=result, outcome=outcome)
    return True


def _make_candidate(app: App, session: Session, decision: Decision, plan: Plan, jobs: Sequence[Job]) -> None:
    record = PlanRecord.model_validate(plan.spec)
    answering = next(job for job in jobs if job.name == record.result)
    artifacts = _artifacts(session, decision, record, jobs, answering)
    origin = _init_version(session, decision, record)
    version = chain.append(
        session,
        Version(
            stream_id=decision.stream_id,
            number=next_number(session, decision.stream_id),
            state="candidate",
            strategy=record.strategy,
            decision_id=decision.id,
            job_id=answering.id,
            model_hash=records.fingerprint(
                {role: one for role, (one, _) in artifacts.items() if role.startswith("answer/")}
            ),
            facts={
                **_facts(answering, jobs),
                "new_bytes": _new_bytes(session, origin, {role: one for role, (one, _) in artifacts.items()}, record),
            },
            pinned=False,
            created_at=app.clock.now(),
        ),
    )
    for role, (manifest_hash, job_id) in artifacts.items():
        session.add(VersionArtifact(version_id=version.id, role=role, manifest_hash=manifest_hash, job_id=job_id))
    session.add(VersionParent(child_id=version.id, parent_id=origin.id, role="init"))
    _remember_rows(session, version, record, jobs)


def _artifacts(
    session: Session, decision: Decision, record: PlanRecord, jobs: Sequence[Job], answering: Job
) -> dict[str, tuple[str, int | None]]:
    """The answer of the plan's result, every job's state, and every job's evidence under a role of its own."""
    kept: dict[str, tuple[str, int | None]] = {}
    for job in jobs:
        for role, manifest_hash in (job.artifacts or {}).items():
            if not role.startswith("answer/") or job.id == answering.id:
                kept[_role(role, job, answering)] = (manifest_hash, job.id)
    if "answer/model" not in kept:
        origin = _init_version(session, decision, record)
        kept["answer/model"] = (records.artifacts_of(session, origin.id)["answer/model"], None)
    return kept


def _role(role: str, job: Job, answering: Job) -> str:
    """Evidence of other jobs than the result is told apart by the job: a proxy and a stage leave the same kinds."""
    return f"{role}/{job.name}" if role.startswith("evidence/") and job.id != answering.id else role


def _init_version(session: Session, decision: Decision, record: PlanRecord) -> Version:
    owners = {parse_reference(template.init).of for template in record.jobs.values()}
    return _origin(session, decision, "base" if "base" in owners else "live")


def _facts(answering: Job, jobs: Sequence[Job]) -> dict[str, Any]:
    """How to make the version again, and what it knows."""
    return {
        "labels": list(records.result_of(answering).labels),
        "jobs": {job.name: records.result_of(job).facts for job in jobs},
    }


def _new_bytes(
    session: Session, origin: Version, artifacts: Mapping[str, str], record: PlanRecord
) -> dict[str, float | None]:
    """Share of the answer's bytes that the version it started from does not have, and the bound that the plan gave."""
    ours, theirs = (
        [one for role, one in found.items() if role.startswith("answer/")]
        for found in (artifacts, records.artifacts_of(session, origin.id))
    )
    bound = record.values.get("new_bytes_bound")
    return {"share": round(manifests.new_share(session, ours, theirs), 4), "bound": bound.value if bound else None}


def _remember_rows(session: Session, version: Version, record: PlanRecord, jobs: Sequence[Job]) -> None:
    """Who saw which document: the bitmaps of all jobs, joined per batch and role; samples as the result took them."""
    kept: dict[tuple[int, str], VersionBatch] = {}
    taken: dict[tuple[int, str], dict[str, int]] = {}
    for job in jobs:
        directory = directory_of(session, job)
        for one in records.result_of(job).consumed:
            key: tuple[int, str] = (one.batch, one.role)
            bits = (directory / one.bitmap).read_bytes()
            row = kept.setdefault(key, _untaken(version, one, len(bits)))
            row.rows = bytes(left | right for left, right in zip(row.rows, bits, strict=True))
            row.documents = sum(byte.bit_count() for byte in row.rows)
            taken.setdefault(key, {})[job.name] = one.samples
    for key, row in kept.items():
        row.samples = along(record, taken[key])
    session.add_all(kept.values())


def _untaken(version: Version, consumed: Consumed, size_bytes: int) -> VersionBatch:
    """A row of the version for a job's ``consumed``, with no document in it yet."""
    return VersionBatch(
        version_id=version.id,
        batch_id=consumed.batch,
        role=consumed.role,
        snapshot_hash=consumed.sha256,
        rows=bytes(size_bytes),
        documents=0,
        samples=0,
    )
