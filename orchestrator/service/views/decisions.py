"""Decisions as they are shown: what was chosen, why, and how it ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.service.records import DecisionDetail, DecisionRecord
from orchestrator.service.views import common
from orchestrator.service.views.versions import verdict_of
from storage.tables import Decision, Job, Promotion, StreamRevision, Version
from strategies.chooser.evidence import in_words
from strategies.contract import Signals


def list_decisions(app: App, *, stream: str | None, limit: int, before: int | None) -> list[DecisionRecord]:
    """The newest decisions, of one stream or all."""
    query = select(Decision)
    with app.database.read() as session:
        if stream is not None:
            query = query.where(Decision.stream_id == common.find_stream(session, stream).id)
        rows: list[Decision] = common.page(session, query, by=Decision.id, limit=limit, before=before)
        return decision_records(session, rows)


def show_decision(app: App, decision_id: int) -> DecisionDetail:
    """One decision with its signals, what was turned down, and the gate's verdict."""
    with app.database.read() as session:
        row = common.find_decision(session, decision_id)
        record = decision_records(session, [row])[0]
        version = _versions(session, [row.id]).get(row.id)
        return DecisionDetail(
            **record.model_dump(),
            signals=row.signals,
            measured=in_words(Signals.model_validate(row.signals)) if row.signals else {},
            settings=row.settings,
            alternatives=tuple(row.alternatives),
            verdict=None if version is None else verdict_of(session, version.id),
        )


def decision_records(session: Session, rows: Sequence[Decision]) -> list[DecisionRecord]:
    """The rows under the names that scripts rely on, with how each ended."""
    ids = [row.id for row in rows]
    names = common.stream_names(session, (row.stream_id for row in rows))
    parents = common.version_numbers(session, (row.parent_version_id for row in rows))
    revisions = _revisions(session, [row.revision_id for row in rows])
    versions = _versions(session, ids)
    promoted = _promoted(session, versions)
    jobs = _jobs(session, ids)
    return [
        DecisionRecord(
            id=row.id,
            stream=names[row.stream_id],
            state=row.state,
            requested=row.requested,
            strategy=row.strategy,
            parent=parents[row.parent_version_id],
            revision=revisions[row.revision_id],
            batches=tuple(row.batches),
            reason=row.reason,
            outcome=row.outcome,
            result=_result(row, promoted=row.id in promoted),
            version=versions[row.id].number if row.id in versions else None,
            jobs=tuple(jobs.get(row.id, ())),
            actor=row.actor,
            created_at=row.created_at,
            decided_at=row.decided_at,
            closed_at=row.closed_at,
        )
        for row in rows
    ]


def _revisions(session: Session, ids: list[int]) -> dict[int, int]:
    rows = session.execute(select(StreamRevision.id, StreamRevision.number).where(StreamRevision.id.in_(ids)))
    return {row.id: row.number for row in rows}


def _versions(session: Session, decisions: list[int]) -> dict[int, Version]:
    rows = session.scalars(select(Version).where(Version.decision_id.in_(decisions)).order_by(Version.id))
    return {row.decision_id: row for row in rows if row.decision_id is not None}


def _jobs(session: Session, decisions: list[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    rows = session.execute(select(Job.id, Job.decision_id).where(Job.decision_id.in_(decisions)).order_by(Job.id))
    for job_id, decision_id in rows:
        if decision_id is not None:
            found[decision_id].append(job_id)
    return found


def _promoted(session: Session, versions: dict[int, Version]) -> set[int]:
    """The decisions whose version was live once, be it at a user's word after they had ended otherwise."""
    ids = [version.id for version in versions.values()]
    live = set(session.scalars(select(Promotion.version_id).where(Promotion.version_id.in_(ids))))
    return {decision for decision, version in versions.items() if version.id in live}


def _result(row: Decision, *, promoted: bool) -> str | None:
    """How a decision ended; ``nothing``: before a strategy was chosen."""
    if row.closed_at is None:
        return None
    if promoted:
        return "promoted"
    return "nothing" if row.decided_at is None else row.result
