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
from strategies.settings.merging import (
    FisherMerge,
    GreedySoupMerge,
    Merge,
    SoupMerge,
    TaskArithmeticMerge,
    combining,
    share_gone_back,
)

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
    sets: Sequence[Mapping[str, Any]] = ()
    """:class:`~strategies.contract.MergeSet` records, symbolic."""
    rows: Sequence[Mapping[str, Any] | None] = ()
    """A symbolic source file for each member whose Fisher information is to be estimated."""


def spec_of(session: Session, wanted: Wanted, settings: StreamSettings) -> dict[str, Any]:
    """The job that carries the merge out."""
    rows = wanted.rows or [None] * len(wanted.members)
    return queue.spec(
        settings,
        model=evaluation.model_of(session, wanted.base, settings),
        work={
            "kind": "merge",
            "base": _role(wanted.base),
            "method": wanted.method.model_dump(mode="json"),
            "parents": [
                {
                    "role": _role(one),
                    "model": evaluation.model_of(session, one, settings),
                    "weight": weight,
                    "rows": source,
                }
                for one, weight, source in zip(wanted.members, wanted.weights, rows, strict=True)
            ],
            "into": wanted.into,
            "sets": list(wanted.sets),
            "training": settings.training.model_dump(mode="json"),
        },
    )


def queue_merge(
    session: Session,
    stream: Stream,
    spec: dict[str, Any],
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
        kind="fit",
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
    result = job.result or {}
    artifacts = {**(carried or {}), **(job.artifacts or {})}
    if "answer/model" not in artifacts:
        artifacts["answer/model"] = job.spec["work"]["parents"][0]["model"]["path"].removeprefix("manifest:")
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
            facts={"labels": result.get("labels", []), "jobs": {job.name: result.get("facts", {})}},
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
    work, facts = job.spec["work"], (job.result or {}).get("facts", {})
    weights = _shares(work, facts)
    parents = {role: _by_role(session, version.stream_id, role) for role in {work["base"], *weights}}
    base = parents[work["base"]]
    members = [parents[one["role"]] for one in work["parents"]]
    # What is behind a base that all members came from is behind them already.
    if not all(base.id in lineage.ancestors(session, one.id) for one in members):
        weights.setdefault(work["base"], _base_share(work, facts))
    for role, weight in weights.items():
        session.add(VersionParent(child_id=version.id, parent_id=parents[role].id, role=MERGED, weight=weight))


def _by_role(session: Session, stream_id: str, role: str) -> Version:
    version = lineage.version_by_number(session, stream_id, int(role.removeprefix("v")))
    assert version is not None, "versions are never removed"
    return version


def _shares(work: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, float]:
    """Role -> how much of it is in the result: shares of a mean; else the weight it was given."""
    weights = {one["role"]: float(one["weight"]) for one in work["parents"]}
    method = _method(work, facts)
    back = share_gone_back(method)
    if back is not None:
        (candidate,) = weights
        return {work["base"]: back, candidate: 1 - back}
    if isinstance(method, GreedySoupMerge):
        kept = facts["kept"]
        return {role: 1 / len(kept) if role in kept else 0.0 for role in weights}
    total = sum(weights.values()) if isinstance(combining(method), SoupMerge) else 1.0
    return {role: weight / total for role, weight in weights.items()}


def _base_share(work: Mapping[str, Any], facts: Mapping[str, Any]) -> float:
    """How much of a base that is no member is in the result: 1 less the factors on the members' changes.

    0 for means of the members; 1 where changes are chosen or scaled number by number and added to the whole base.
    """
    method = combining(_method(work, facts))
    if method.mean:
        return 0.0
    if isinstance(method, TaskArithmeticMerge):
        return 1 - method.lam * sum(float(one["weight"]) for one in work["parents"])
    return 1.0


def _method(work: Mapping[str, Any], facts: Mapping[str, Any]) -> Merge:
    """The merge that was carried out; of a repair the trial that was chosen."""
    raw = facts["trials"][facts["chosen"]]["method"] if work["method"]["kind"] == "repair" else work["method"]
    method: Merge = TypeAdapter(Merge).validate_python(raw)
    return method
