"""What a user's merge and the gate's repair share: the job that is queued, and the version that is made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter
from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.errors import BadInput
from orchestrator.flow import evaluation, records
from orchestrator.flow.job import next_number
from orchestrator.jobs import queue
from orchestrator.settings import StreamSettings
from storage import chain, lineage
from storage.tables import EvalSet, Evaluation, Job, Stream, Version, VersionArtifact, VersionParent
from strategies.contract import MergeParent, MergeSet, MergeWork, QueuedSpec, SourceFile
from strategies.merging.shares import base_share, shares
from strategies.settings.merging import FisherMerge, GreedySoupMerge, Merge, RepairMerge, combining

MERGED = "merged"
"""Role of the lineage's edges to what was merged."""
PLAIN_ANSWERS = {"answer/model", "answer/adapter"}
"""What a version answers with unless it is a bank of adapters."""
Form = Literal["model", "adapter"]
"""What a merge makes."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A merge: which versions, how, and the version that changes are counted from or gone back to."""

    method: Merge
    base: Version
    members: Sequence[Version]
    weights: Sequence[float]
    into: Form
    sets: Sequence[MergeSet] = ()
    rows: Sequence[SourceFile | None] = ()
    """Of each member, where its Fisher information is to be estimated."""


def spec_of(session: Session, wanted: Wanted, settings: StreamSettings) -> QueuedSpec:
    """The job that carries the merge out."""
    rows = wanted.rows or [None] * len(wanted.members)
    work = MergeWork(
        base=_role(wanted.base),
        method=wanted.method,
        parents=tuple(
            MergeParent(role=_role(one), model=evaluation.model_of(session, one, settings), weight=weight, rows=source)
            for one, weight, source in zip(wanted.members, wanted.weights, rows, strict=True)
        ),
        into=wanted.into,
        sets=tuple(wanted.sets),
        training=settings.training,
    )
    return queue.spec(settings, model=evaluation.model_of(session, wanted.base, settings), work=work)


def queue_merge(
    session: Session,
    stream: Stream,
    spec: QueuedSpec,
    settings: StreamSettings,
    *,
    name: str,
    key: str,
    decision_id: int | None = None,
) -> Job:
    """The job under that key, queued if it is not there yet."""
    return queue.queue(
        session,
        share=queue.share_of(settings),
        stream_id=stream.id,
        name=name,
        key=key,
        spec=spec,
        decision_id=decision_id,
    )


def form_of(
    session: Session, base: Version, members: Iterable[Version], method: Merge, asked: Form | None = None
) -> Form:
    """The form that is asked for; without, an adapter where it can be one, else a full model.

    An adapter it can be where all that is merged are adapters on the base's folder and the method takes them.

    Raises:
        BadInput: an adapter is asked for where it can be none.
    """
    hindrance = _hindrance(session, base, members, method)
    if asked == "adapter" and hindrance is not None:
        raise BadInput(f"{hindrance}; merge into a model")
    return asked or ("adapter" if hindrance is None else "model")


def _hindrance(session: Session, base: Version, members: Iterable[Version], method: Merge) -> str | None:
    """Why the result cannot be an adapter; None: it can."""
    inner = combining(method)
    if isinstance(inner, FisherMerge | GreedySoupMerge):
        return f"{inner.kind} merges full models"
    folder = records.artifacts_of(session, base.id)["answer/model"]
    for one in members:
        found = records.artifacts_of(session, one.id)
        if "answer/adapter" not in found:
            return f"version {one.number} is no adapter"
        if found["answer/model"] != folder:
            return f"version {one.number} is an adapter on another model than version {base.number}"
    return None


def is_bank(session: Session, version: Version) -> bool:
    """Whether a version answers with a bank of adapters, which no merge takes."""
    answers = {role for role in records.artifacts_of(session, version.id) if role.startswith("answer/")}
    return not answers <= PLAIN_ANSWERS


def with_select(session: Session, sets: Iterable[EvalSet]) -> list[EvalSet]:
    """Eval sets with documents to choose by: their ``select`` half has been scored before; one a name."""
    named = {one.name: one for one in sets}
    scored = set(
        session.scalars(
            select(Evaluation.eval_set_hash).where(
                Evaluation.eval_set_hash.in_([one.content_hash for one in named.values()]),
                Evaluation.value_select.is_not(None),
            )
        )
    )
    return [one for one in named.values() if one.content_hash in scored]


def was_merged(session: Session, version: Version) -> bool:
    """Whether a version came of a merge or a repair."""
    edge = select(VersionParent.child_id).where(VersionParent.child_id == version.id, VersionParent.role == MERGED)
    return session.scalar(edge.limit(1)) is not None


def make_version(
    app: App, session: Session, job: Job, *, strategy: str, carried: Mapping[str, str] | None = None
) -> Version:
    """The candidate that a merge job has made, with an edge to everything that went into it.

    ``carried`` are further artifacts by role, taken over from what was merged.
    """
    result = records.result_of(job)
    artifacts = {**(carried or {}), **(job.artifacts or {})}
    if "answer/model" not in artifacts:
        stands_on = records.work_of(job, MergeWork).parents[0].model.path
        artifacts["answer/model"] = stands_on.removeprefix("manifest:")
    answer = {role: one for role, one in artifacts.items() if role.startswith("answer/")}
    version = chain.append(
        session,
        Version(
            stream_id=job.stream_id,
            number=next_number(session, job.stream_id),
            state="candidate",
            strategy=strategy,
            decision_id=job.decision_id,
            job_id=job.id,
            model_hash=records.fingerprint(answer),
            facts={"labels": list(result.labels), "jobs": {job.name: result.facts}},
            pinned=False,
            created_at=app.clock.now(),
        ),
    )
    for role, manifest_hash in artifacts.items():
        made_by = job.id if role in (job.artifacts or {}) else None
        session.add(VersionArtifact(version_id=version.id, role=role, manifest_hash=manifest_hash, job_id=made_by))
    _add_edges(session, version, job)
    session.flush()
    return version


def _role(version: Version) -> str:
    return f"v{version.number}"


def _add_edges(session: Session, version: Version, job: Job) -> None:
    work, facts = records.work_of(job, MergeWork), records.result_of(job).facts
    method, weights = _method(work, facts), {one.role: one.weight for one in work.parents}
    kept = facts["kept"] if isinstance(method, GreedySoupMerge) else ()
    edges = shares(method, base=work.base, weights=weights, kept=kept)
    parents = {role: _by_role(session, version.stream_id, role) for role in {work.base, *edges}}
    base = parents[work.base]
    # What is behind a base that all members came from is behind them already.
    if not all(base.id in lineage.ancestors(session, parents[role].id) for role in weights):
        edges.setdefault(work.base, base_share(method, weights.values()))
    for role, weight in edges.items():
        session.add(VersionParent(child_id=version.id, parent_id=parents[role].id, role=MERGED, weight=weight))


def _by_role(session: Session, stream_id: str, role: str) -> Version:
    version = lineage.version_by_number(session, stream_id, int(role.removeprefix("v")))
    assert version is not None, "versions are never removed"
    return version


def _method(work: MergeWork, facts: Mapping[str, Any]) -> Merge:
    """The merge that was carried out; of a repair the trial that was chosen."""
    if not isinstance(work.method, RepairMerge):
        return work.method
    method: Merge = TypeAdapter(Merge).validate_python(facts["trials"][facts["chosen"]]["method"])
    return method
