"""Versions, their scores and their lineage as they are shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.flow.merge_job import MERGED
from orchestrator.service.names import VersionName
from orchestrator.service.records import (
    Edge,
    EvaluationRecord,
    LineageRecord,
    PromotionRecord,
    VerdictRecord,
    VersionDetail,
    VersionRecord,
)
from orchestrator.service.views import common
from storage import lineage
from storage.tables import (
    EvalSet,
    Evaluation,
    Event,
    Promotion,
    Stream,
    Verdict,
    Version,
    VersionArtifact,
    VersionBatch,
    VersionParent,
)


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of several versions, asked for at once."""

    numbers: dict[int, int]
    parents: dict[int, list[VersionParent]] = field(default_factory=dict)
    batches: dict[int, list[lineage.BatchUse]] = field(default_factory=dict)
    """What a version consumed itself; of a merged one, what is behind all that it was merged from."""
    evaluations: dict[int, list[EvaluationRecord]] = field(default_factory=dict)


def list_versions(app: App, stream: str, *, limit: int, before: int | None) -> list[VersionRecord]:
    """The newest versions of a stream, in order of their numbers."""
    with app.database.read() as session:
        owner = common.find_stream(session, stream)
        query = select(Version).where(Version.stream_id == owner.id)
        rows: list[Version] = common.page(session, query, by=Version.number, limit=limit, before=before)
        return version_records(session, owner, rows)


def version_records(session: Session, stream: Stream, rows: Sequence[Version]) -> list[VersionRecord]:
    """The rows under the names that scripts rely on."""
    facts = gather(session, rows)
    return [_record(row, stream.name, facts) for row in rows]


def show_version(app: App, name: VersionName) -> VersionDetail:
    """One version with all that is known of it."""
    with app.database.read() as session:
        stream = common.find_stream(session, name.stream)
        row = common.find_version(session, stream, name.number)
        facts = gather(session, [row])
        return VersionDetail(
            **_record(row, stream.name, facts).model_dump(),
            edges=_edges(row, facts),
            rejection=_rejection(session, row),
            pinned=row.pinned,
            model_hash=row.model_hash,
            evaluations=tuple(facts.evaluations.get(row.id, ())),
            verdict=verdict_of(session, row.id),
            promotions=_promotions(session, row.id),
            artifacts=artifacts_of(session, row.id),
            facts=row.facts,
        )


def matrix(app: App, stream: str, *, limit: int, before: int | None) -> list[EvaluationRecord]:
    """The evaluations of the newest versions on all their eval sets, by version."""
    with app.database.read() as session:
        owner = common.find_stream(session, stream)
        query = select(Version).where(Version.stream_id == owner.id)
        rows: list[Version] = common.page(session, query, by=Version.number, limit=limit, before=before)
        found = evaluations_of(session, rows)
    return [one for row in rows for one in found.get(row.id, ())]


def show_lineage(app: App, name: VersionName, *, whole: bool) -> list[LineageRecord]:
    """The newest versions of the stream with their parents; unless ``whole``, one's ancestors and descendants alone."""
    with app.database.read() as session:
        stream = common.find_stream(session, name.stream)
        query = select(Version).where(Version.stream_id == stream.id)
        rows: list[Version] = common.page(session, query, by=Version.number, limit=common.MAX_PAGE, before=None)
        if not whole:
            chosen = common.find_version(session, stream, name.number)
            line = {chosen.id, *lineage.ancestors(session, chosen.id), *lineage.descendants(session, chosen.id)}
            rows = [row for row in rows if row.id in line]
        facts = gather(session, rows)
    return [_lineage_record(row, facts) for row in rows]


def gather(session: Session, rows: Sequence[Version]) -> Facts:
    """Parents, batches and scores of several versions, in four queries, and one more for each that was merged."""
    ids = [row.id for row in rows]
    parents = list(
        session.scalars(
            select(VersionParent)
            .where(VersionParent.child_id.in_(ids))
            .order_by(VersionParent.role, VersionParent.parent_id)
        )
    )
    batches = session.scalars(
        select(VersionBatch).where(VersionBatch.version_id.in_(ids)).order_by(VersionBatch.batch_id)
    )
    merged = {edge.child_id for edge in parents if edge.role == MERGED}
    facts = Facts(
        numbers=common.version_numbers(session, (edge.parent_id for edge in parents)),
        parents=defaultdict(list),
        batches=defaultdict(list),
        evaluations=evaluations_of(session, rows),
    )
    for edge in parents:
        facts.parents[edge.child_id].append(edge)
    for batch in batches:
        facts.batches[batch.version_id].append(lineage.BatchUse(batch_id=batch.batch_id, role=batch.role))
    for version_id in merged:
        facts.batches[version_id] = lineage.batches_behind(session, version_id)
    return facts


def evaluations_of(session: Session, rows: Sequence[Version]) -> dict[int, list[EvaluationRecord]]:
    """Version id -> its newest evaluation on each eval set, the anchor first."""
    query = (
        select(Evaluation, EvalSet)
        .join(EvalSet, EvalSet.id == Evaluation.eval_set_id)
        .where(Evaluation.version_id.in_([row.id for row in rows]))
        .order_by(Evaluation.id)
    )
    numbers = {row.id: row.number for row in rows}
    newest = {(one.version_id, eval_set.name): (one, eval_set) for one, eval_set in session.execute(query)}
    found: dict[int, list[EvaluationRecord]] = defaultdict(list)
    for one, eval_set in sorted(newest.values(), key=lambda pair: (pair[1].kind != "anchor", pair[1].id)):
        found[one.version_id].append(_evaluation(one, eval_set, numbers[one.version_id]))
    return found


def verdict_of(session: Session, version_id: int) -> VerdictRecord | None:
    """The gate's newest verdict on a version."""
    row = session.scalars(
        select(Verdict).where(Verdict.version_id == version_id).order_by(Verdict.id.desc()).limit(1)
    ).first()
    if row is None:
        return None
    return VerdictRecord(
        outcome=row.outcome,
        mode=row.mode,
        compared_with=common.version_numbers(session, [row.compared_with_id])[row.compared_with_id],
        reason=row.reason,
        details=row.details,
        created_at=row.created_at,
    )


def artifacts_of(session: Session, version_id: int) -> dict[str, str]:
    """Role -> manifest hash."""
    query = select(VersionArtifact).where(VersionArtifact.version_id == version_id).order_by(VersionArtifact.role)
    return {row.role: row.manifest_hash for row in session.scalars(query)}


def _rejection(session: Session, row: Version) -> str | None:
    """Why a rejected version was rejected; with what came of its repair."""
    if row.state != "rejected":
        return None
    moves = select(Event.reason).where(
        Event.subject == "version", Event.subject_id == str(row.id), Event.action == "move"
    )
    return session.scalar(moves.order_by(Event.id.desc()).limit(1))


def _evaluation(row: Evaluation, eval_set: EvalSet, number: int) -> EvaluationRecord:
    return EvaluationRecord(
        version=number,
        eval_set=eval_set.name,
        kind=eval_set.kind,
        metric=row.metric,
        value=row.value,
        examples=row.examples,
        created_at=row.created_at,
    )


def _record(row: Version, stream: str, facts: Facts) -> VersionRecord:
    return VersionRecord(
        stream=stream,
        number=row.number,
        state=row.state,
        strategy=row.strategy,
        parents=_parents(row, facts),
        job=row.job_id,
        decision=row.decision_id,
        batches=_batches(row, facts, "trained"),
        created_at=row.created_at,
        scores={one.eval_set: one.value for one in facts.evaluations.get(row.id, ())},
    )


def _lineage_record(row: Version, facts: Facts) -> LineageRecord:
    return LineageRecord(
        number=row.number,
        state=row.state,
        strategy=row.strategy,
        parents=_parents(row, facts),
        edges=_edges(row, facts),
        batches=_batches(row, facts, "trained"),
        replayed=_batches(row, facts, "replayed"),
        created_at=row.created_at,
    )


def _parents(row: Version, facts: Facts) -> tuple[int, ...]:
    return tuple(dict.fromkeys(facts.numbers[edge.parent_id] for edge in facts.parents.get(row.id, ())))


def _edges(row: Version, facts: Facts) -> tuple[Edge, ...]:
    edges = facts.parents.get(row.id, ())
    return tuple(Edge(parent=facts.numbers[one.parent_id], role=one.role, weight=one.weight) for one in edges)


def _batches(row: Version, facts: Facts, role: str) -> tuple[int, ...]:
    return tuple(one.batch_id for one in facts.batches.get(row.id, ()) if one.role == role)


def _promotions(session: Session, version_id: int) -> tuple[PromotionRecord, ...]:
    rows = list(session.scalars(select(Promotion).where(Promotion.version_id == version_id).order_by(Promotion.id)))
    numbers = common.version_numbers(session, (row.previous_version_id for row in rows))
    return tuple(
        PromotionRecord(
            kind=row.kind,
            previous=numbers.get(row.previous_version_id or 0),
            reason=row.reason,
            actor=row.actor,
            created_at=row.created_at,
        )
        for row in rows
    )
