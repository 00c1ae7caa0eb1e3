"""Batches as they are shown."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.service.records import BatchDetail, BatchRecord, QuarantineRecord
from orchestrator.service.views import common
from storage import lineage
from storage.tables import Batch, Quarantine


def list_batches(
    app: App, *, stream: str | None, state: str | None, limit: int, before: int | None
) -> list[BatchRecord]:
    """The newest batches, of one stream or all."""
    query = select(Batch)
    if state is not None:
        query = query.where(Batch.state == state)
    with app.database.read() as session:
        if stream is not None:
            query = query.where(Batch.stream_id == common.find_stream(session, stream).id)
        rows: list[Batch] = common.page(session, query, by=Batch.id, limit=limit, before=before)
        names = common.stream_names(session, (row.stream_id for row in rows))
    return [batch_record(row, names[row.stream_id]) for row in rows]


def show_batch(app: App, batch_id: int) -> BatchDetail:
    """One batch, with its quarantined rows and the versions that saw it, themselves or by an ancestor."""
    with app.database.read() as session:
        row = common.find_batch(session, batch_id)
        name = common.stream_names(session, [row.stream_id])[row.stream_id]
        versions = tuple(lineage.versions_that_saw_batch(session, row.id))
        quarantine = quarantine_of(session, row.id)
    record = batch_record(row, name).model_dump()
    return BatchDetail(**record, labels=tuple(row.labels), quarantine=quarantine, versions=versions)


def batch_record(row: Batch, stream: str) -> BatchRecord:
    """The row under the names that scripts rely on."""
    return BatchRecord(
        id=row.id,
        stream=stream,
        kind=row.kind,
        name=row.name,
        state=row.state,
        reason=row.state_reason,
        documents=row.documents,
        train_documents=row.train_documents,
        heldout_documents=row.heldout_documents,
        duplicates=row.duplicates,
        near_duplicates=row.near_duplicates,
        conflicts=row.conflicts,
        leaked=row.leaked,
        quarantined=row.quarantined,
        refusals=row.refusals,
        synthetic=row.synthetic,
        content_hash=row.snapshot_hash,
        arrival_hash=row.arrival_hash,
        created_at=row.created_at,
    )


def quarantine_of(session: Session, batch_id: int) -> tuple[QuarantineRecord, ...]:
    """The first quarantined rows of a batch."""
    query = select(Quarantine).where(Quarantine.batch_id == batch_id).order_by(Quarantine.id)
    rows = session.scalars(query.limit(common.QUARANTINE_SHOWN))
    return tuple(QuarantineRecord(file=row.file, line=row.line, reason=row.reason, excerpt=row.excerpt) for row in rows)
