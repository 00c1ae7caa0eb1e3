"""Making a batch durable: its files first, into the store; then every row about it, in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from orchestrator.errors import Conflict
from orchestrator.ingest import sketches, snapshots
from orchestrator.ingest.gather import Counts
from orchestrator.ingest.records import AD_HOC_PREFIX, Kind, Outcome
from orchestrator.ingest.scratch import Final, Scratch
from orchestrator.ingest.snapshots import Writer
from storage import events, manifests
from storage.artifacts import ArtifactStore, Stored
from storage.database import now
from storage.tables import Arrival, Base, Batch, Document, DocumentBand, DocumentSketch, EvalSet, Quarantine, Stream
from strategies.settings import Task

DOCUMENTS_AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class Coming:
    """An arrival that is being ingested: whose, what, under which name and hash, by whom."""

    stream_id: str
    task: Task
    kind: Kind
    name: str
    arrival_name: str
    arrival_hash: str
    bytes: int
    actor: str
    synthetic: bool = False
    ad_hoc: bool = False
    newest_batch: int = 0


@dataclass(frozen=True, kw_only=True)
class Files:
    """The batch's files in the store."""

    snapshot: Stored
    eval_set: Stored | None
    train: int
    heldout: int


class Moved(Exception):  # noqa: N818 - says what happened: the stream got another batch since this one was compared
    """The stream got another batch while this one was read; it must be compared again."""


def store_files(store: ArtifactStore, scratch: Scratch, working_copy: Path, folder: Path, task: Task) -> Files:
    """Write the snapshot and the eval set of the kept rows, and put both into the store."""
    halves = snapshots.halves(scratch.held_out())
    batch_path, eval_path = folder / "snapshot.parquet", folder / "eval.parquet"
    with (
        Writer(batch_path, snapshots.batch_schema(task)) as batch,
        Writer(eval_path, snapshots.eval_schema(task)) as held,
    ):
        for final, fields in _with_fields(scratch.kept(), working_copy):
            facts = {"digest": final.digest, "external_id": final.external, "split": final.split}
            batch.add({"row": batch.count, **facts, **fields})
            if final.split == "heldout":
                held.add({"digest": final.digest, "half": halves[final.digest], **fields})
    eval_set = store.add_file(eval_path) if held.count else None
    return Files(
        snapshot=store.add_file(batch_path), eval_set=eval_set, train=batch.count - held.count, heldout=held.count
    )


def _with_fields(kept: Iterator[Final], working_copy: Path) -> Iterator[tuple[Final, dict[str, Any]]]:
    """Both are in the order of arrival; the working copy has more rows."""
    rows = snapshots.read_rows(working_copy)
    for final in kept:
        fields = next(row for row in rows if row["row"] == final.row)
        del fields["row"]
        yield final, fields


def newest_batch(session: Session, stream_id: str) -> int:
    """Id of the stream's newest batch, 0 if there is none."""
    return session.scalar(select(func.max(Batch.id)).where(Batch.stream_id == stream_id)) or 0


def find_batch(session: Session, coming: Coming) -> Batch | None:
    """The batch that this content became before."""
    query = select(Batch).where(
        Batch.stream_id == coming.stream_id, Batch.kind == coming.kind, Batch.arrival_hash == coming.arrival_hash
    )
    if coming.ad_hoc:
        query = query.where(Batch.name.startswith(AD_HOC_PREFIX, autoescape=True))
    elif coming.kind != "data":
        query = query.where(Batch.name == coming.name)
    return session.scalars(query.limit(1)).first()


def record_batch(session: Session, coming: Coming, scratch: Scratch, files: Files, counts: Counts) -> Batch:
    """Write the batch, its documents, its eval set, its bad rows, its arrival and the event.

    Raises:
        Moved: another batch came first.
        Conflict: the stream is archived.
    """
    _check_stream(session, coming)
    manifests.register_object(session, files.snapshot)
    batch = _batch(coming, scratch, files, counts)
    session.add(batch)
    session.flush()
    # Later arrivals are compared with documents: a set that guards nothing has none.
    if not coming.ad_hoc:
        _add_documents(session, batch, scratch)
    _add_quarantine(session, coming, scratch, batch.id)
    if files.eval_set is not None:
        _add_eval_set(session, coming, scratch, batch, files)
    reason = _changed_content(session, coming)
    record_arrival(session, coming, "accepted", reason, batch.id)
    events.record(
        session,
        stream_id=coming.stream_id,
        subject="batch",
        subject_id=batch.id,
        action="ingested",
        actor=coming.actor,
        reason=reason or f"{coming.arrival_name} arrived",
        details={"documents": batch.documents, "quarantined": batch.quarantined, "arrival_hash": batch.arrival_hash},
        to_state=batch.state,
    )
    return batch


def record_no_batch(session: Session, coming: Coming, scratch: Scratch | None, outcome: Outcome, reason: str) -> None:
    """Write an arrival that made no batch, with the rows that were the reason."""
    if record_arrival(session, coming, outcome, reason, None) and scratch is not None:
        _add_quarantine(session, coming, scratch, None)


def record_arrival(
    session: Session, coming: Coming, outcome: Outcome, reason: str | None, batch_id: int | None
) -> bool:
    """Write what became of a file; the same file again only replaces an earlier refusal. Says whether it was new."""
    mine = (Arrival.stream_id == coming.stream_id, Arrival.name == coming.arrival_name)
    found = session.scalars(select(Arrival).where(*mine, Arrival.arrival_hash == coming.arrival_hash)).first()
    if found is None:
        session.add(
            Arrival(
                stream_id=coming.stream_id,
                name=coming.arrival_name,
                arrival_hash=coming.arrival_hash,
                bytes=coming.bytes,
                outcome=outcome,
                reason=reason,
                batch_id=batch_id,
                created_at=now(),
            )
        )
        session.flush()
        return True
    session.execute(
        update(Arrival)
        .where(Arrival.id == found.id, Arrival.outcome == "refused")
        .values(outcome=outcome, reason=reason, batch_id=batch_id)
    )
    return False


def _check_stream(session: Session, coming: Coming) -> None:
    state = session.scalar(select(Stream.state).where(Stream.id == coming.stream_id))
    if state == "archived":
        raise Conflict("the stream is archived; add it again before ingesting")
    if newest_batch(session, coming.stream_id) != coming.newest_batch:
        raise Moved


def _batch(coming: Coming, scratch: Scratch, files: Files, counts: Counts) -> Batch:
    return Batch(
        stream_id=coming.stream_id,
        kind=coming.kind,
        name=coming.name,
        state="pending" if coming.kind == "data" else "trained",
        state_reason=None,
        arrival_hash=coming.arrival_hash,
        snapshot_hash=files.snapshot.hash,
        synthetic=coming.synthetic,
        documents=files.train + files.heldout,
        train_documents=files.train,
        heldout_documents=files.heldout,
        duplicates=counts.duplicates,
        near_duplicates=counts.near_duplicates,
        conflicts=counts.conflicts,
        leaked=counts.leaked,
        quarantined=counts.quarantined,
        labels=scratch.labels(),
        created_at=now(),
    )


def _add_documents(session: Session, batch: Batch, scratch: Scratch) -> None:
    kept = enumerate(scratch.kept())
    while part := list(islice(kept, DOCUMENTS_AT_ONCE)):
        _insert(session, Document, [_document(batch, row, final) for row, final in part])
        first, last = part[0][0], part[-1][0]
        query = select(Document.id).where(Document.batch_id == batch.id, Document.row.between(first, last))
        ids = session.scalars(query.order_by(Document.row)).all()
        finals = [final for _, final in part]
        _add_sketches(session, batch.stream_id, list(zip(ids, finals, strict=True)))


def _document(batch: Batch, row: int, final: Final) -> dict[str, Any]:
    return {
        "stream_id": batch.stream_id,
        "batch_id": batch.id,
        "row": row,
        "digest": final.digest,
        "content_digest": final.content,
        "external_id": final.external,
        "split": final.split,
        "cluster": final.cluster,
        "label": final.label,
        "state": "present",
    }


def _add_sketches(session: Session, stream_id: str, documents: list[tuple[int, Final]]) -> None:
    rows = [{"document_id": document, "signature": final.signature} for document, final in documents]
    _insert(session, DocumentSketch, rows)
    bands = [
        {"stream_id": stream_id, "band": band, "value": value, "document_id": document}
        for document, final in documents
        for band, value in enumerate(sketches.bands(sketches.unpack(final.signature)))
    ]
    _insert(session, DocumentBand, bands)


def _insert(session: Session, table: type[Base], rows: list[dict[str, Any]]) -> None:
    """Below the unit of work, which costs more than the database does."""
    session.connection().execute(insert(table), rows)


def _add_quarantine(session: Session, coming: Coming, scratch: Scratch, batch_id: int | None) -> None:
    for rows in scratch.quarantined_rows():
        session.execute(
            insert(Quarantine), [{"stream_id": coming.stream_id, "batch_id": batch_id, **row} for row in rows]
        )


def _add_eval_set(session: Session, coming: Coming, scratch: Scratch, batch: Batch, files: Files) -> None:
    assert files.eval_set is not None
    manifests.register_object(session, files.eval_set)
    name = f"batch-{batch.id}" if coming.kind == "data" else coming.name
    # A new anchor or fixed set of the same name takes the place of the old one.
    session.execute(
        update(EvalSet).where(EvalSet.stream_id == coming.stream_id, EvalSet.name == name).values(active=False)
    )
    same = (EvalSet.stream_id == coming.stream_id, EvalSet.name == name, EvalSet.content_hash == files.eval_set.hash)
    found = session.scalars(select(EvalSet).where(*same)).first()
    if found is None:
        found = _eval_set(coming, name, batch, files, scratch)
        session.add(found)
    else:
        # The same documents in another file, say with another end of line.
        found.members = [*found.members, batch.id]
    found.active = not coming.ad_hoc
    session.flush()


def _eval_set(coming: Coming, name: str, batch: Batch, files: Files, scratch: Scratch) -> EvalSet:
    assert files.eval_set is not None
    return EvalSet(
        stream_id=coming.stream_id,
        name=name,
        kind="batch" if coming.kind == "data" else coming.kind,
        content_hash=files.eval_set.hash,
        documents=files.heldout,
        batch_id=batch.id,
        members=[batch.id],
        labels=scratch.labels(held_only=True),
        created_at=now(),
    )


def _changed_content(session: Session, coming: Coming) -> str | None:
    """Identity is the content: a name that comes again with other content is a new batch, and this is said."""
    query = select(Arrival.batch_id).where(
        Arrival.stream_id == coming.stream_id,
        Arrival.name == coming.arrival_name,
        Arrival.arrival_hash != coming.arrival_hash,
        Arrival.batch_id.is_not(None),
    )
    earlier = session.scalars(query.order_by(Arrival.id.desc()).limit(1)).first()
    if earlier is None:
        return None
    return (
        f"{coming.arrival_name} came before with other content (batch {earlier}); its new rows are a batch of their own"
    )
