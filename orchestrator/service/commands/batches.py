"""Holding batches back and letting them go; taking in what was pushed."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.errors import BadInput, Conflict
from orchestrator.flow import records
from orchestrator.ingest import run as ingest
from orchestrator.ingest.records import IngestReport
from orchestrator.service.records import BatchRecord, IngestRecord
from orchestrator.service.views import common
from orchestrator.service.views.batches import batch_record, quarantine_of
from orchestrator.service.views.streams import check_takes_data
from storage import lineage
from storage.moves import move
from storage.tables import Batch, Stream


def hold(app: App, batch_id: int, *, reason: str, actor: str) -> BatchRecord:
    """Keep a batch out of training and replay until it is released.

    Raises:
        NotFound: no such batch.
        BadInput: no reason given.
        Conflict: it is held already, or erased.
    """
    if not reason.strip():
        raise BadInput("holding a batch needs a reason; give one with --reason")
    with app.database.write() as session:
        batch = _data_batch(session, batch_id)
        move(session, batch, "held", actor=actor, reason=reason, state_reason=reason)
        return _record(session, batch)


def release(app: App, batch_id: int, *, actor: str) -> BatchRecord:
    """Let a held batch feed training again; its refusals are forgotten.

    Raises:
        NotFound: no such batch.
        Conflict: it is not held.
    """
    with app.database.write() as session:
        batch = _data_batch(session, batch_id)
        if batch.state != "held":
            raise Conflict(f"batch {batch_id} is {batch.state}, not held; nothing to release")
        _release(session, batch, actor=actor)
        released = _record(session, batch)
    app.wake.set()
    return released


def release_all(app: App, stream: str, *, batches: tuple[int, ...], actor: str) -> list[BatchRecord]:
    """Release the named held batches of a stream, or all of them.

    Raises:
        NotFound: no such stream.
        Conflict: a named batch is not held there.
    """
    with app.database.write() as session:
        owner = common.find_stream(session, stream)
        held = _held(session, owner)
        missing = sorted(set(batches) - {batch.id for batch in held})
        if missing:
            raise Conflict(
                f"batch {missing[0]} is not held on stream {stream!r}; `rekindle batch list {stream}` shows states"
            )
        chosen = [batch for batch in held if not batches or batch.id in batches]
        for batch in chosen:
            _release(session, batch, actor=actor)
        released = [batch_record(batch, owner.name) for batch in chosen]
    app.wake.set()
    return released


def ingest_file(app: App, stream: str, *, path: Path, name: str, actor: str) -> IngestRecord:
    """Take in one spooled file in a process of its own, with bounded memory.

    Raises:
        NotFound: no such stream.
        Conflict: the stream takes no data now.
    """
    with app.database.read() as session:
        owner = records.stream_by_name(session, stream)
    check_takes_data(owner)
    report = ingest.spawn(app, owner.id, path=path, name=name, kind="data", actor=actor)
    app.wake.set()
    return _ingested(app, owner.name, name, report)


def _ingested(app: App, stream: str, name: str, report: IngestReport) -> IngestRecord:
    with app.database.read() as session:
        quarantine = () if report.batch_id is None else quarantine_of(session, report.batch_id)
    return IngestRecord(
        stream=stream,
        file=name,
        outcome=report.outcome,
        reason=report.reason,
        batch=report.batch_id,
        documents=report.documents,
        duplicates=report.duplicates,
        quarantined=report.quarantined,
        quarantine=quarantine,
    )


def _release(session: Session, batch: Batch, *, actor: str) -> None:
    to = "trained" if _is_behind_live(session, batch) else "pending"
    move(session, batch, to, actor=actor, reason="released", state_reason=None, refusals=0)


def _is_behind_live(session: Session, batch: Batch) -> bool:
    """Whether the live version's line was trained on it: then it goes back to replay, not to training."""
    live = lineage.live_version(session, batch.stream_id)
    if live is None:
        return False
    return any(one.batch_id == batch.id and one.role == "trained" for one in lineage.batches_behind(session, live.id))


def _held(session: Session, stream: Stream) -> list[Batch]:
    query = select(Batch).where(Batch.stream_id == stream.id, Batch.kind == "data", Batch.state == "held")
    return list(session.scalars(query.order_by(Batch.id)))


def _data_batch(session: Session, batch_id: int) -> Batch:
    batch = common.find_batch(session, batch_id)
    if batch.kind != "data":
        raise Conflict(f"batch {batch_id} is the stream's {batch.kind} set, not data; it cannot be held or released")
    return batch


def _record(session: Session, batch: Batch) -> BatchRecord:
    return batch_record(batch, common.stream_names(session, [batch.stream_id])[batch.stream_id])
