"""Ingest: a file becomes a batch, exactly once, or is refused whole with the reason.

Identity is the content hash. The same content again, whatever its name, is recorded as a copy; a name that comes again
with other content is a new batch of the rows not seen yet, and its event says so. A file whose documents are all in the
stream already is a copy too. Files are read from a copy of our own in the spool; snapshot and eval set go into the
store; then one transaction makes all of it true. A process killed at any moment leaves nothing but a work folder, which
the next ingest removes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select

from orchestrator.errors import BadInput, NotFound, Unavailable
from orchestrator.ingest import commit, readers, snapshots, sources, split, spool
from orchestrator.ingest.commit import Coming, Moved
from orchestrator.ingest.gather import Counts, Gatherer
from orchestrator.ingest.normalise import Normaliser, Unusable
from orchestrator.ingest.records import IngestApp, IngestReport, Kind, Outcome, Refused, escape
from orchestrator.ingest.scratch import Scratch
from orchestrator.ingest.snapshots import Writer
from orchestrator.ingest.spool import Fetched
from orchestrator.settings import StreamSettings
from storage.errors import ArtifactWriteFailed, DatabaseUnavailable
from storage.tables import Batch, Stream, StreamRevision

MAX_NAME_CHARACTERS = 512
LOCK_TIMEOUT_S = 3600.0
COMPARISONS = 5


@dataclass(frozen=True, kw_only=True)
class _Ingest:
    """One ingest: where it works, on what, for which stream."""

    app: IngestApp
    settings: StreamSettings
    split_key: str
    folder: Path
    files: Sequence[Fetched]
    coming: Coming


def ingest(
    app: IngestApp,
    stream_id: str,
    *,
    path: str | Path | Sequence[Path],
    name: str,
    kind: Kind = "data",
    actor: str,
    synthetic: bool = False,
    ad_hoc: bool = False,
) -> IngestReport:
    """Ingest one file (for the anchor and fixed eval sets also a glob or several) in this process.

    ``name`` is the file's name, ``anchor``, or the name of the fixed eval set. An
    ``ad_hoc`` set is a user's file to measure on: never active, no guard of training, and free to hold trained rows.

    Raises:
        NotFound: there is no such stream.
        BadInput: the path is not a readable regular file, or the settings do not fit the task.
        Refused: the file is too large to be taken in, or is still growing.
        Unavailable: another ingest holds the stream, or the disk is full; nothing was kept, try again.
    """
    settings, split_key = _stream(app, stream_id)
    try:
        with spool.disk_trouble(app.home.root), spool.work_folder(app.home.spool) as folder:
            files = sources.fetch_all(path, folder, name=name, kind=kind, max_bytes=settings.limits.max_file_bytes)
            with spool.stream_lock(app.home.spool, stream_id, LOCK_TIMEOUT_S):
                spool.sweep(app.home.spool)
                coming = _coming(stream_id, settings, files, name=name, kind=kind, actor=actor)
                coming = replace(coming, synthetic=synthetic, ad_hoc=ad_hoc)
                job = _Ingest(
                    app=app,
                    settings=settings,
                    split_key=split_key,
                    folder=folder,
                    files=files,
                    coming=coming,
                )
                return _compare_and_commit(job)
    except (DatabaseUnavailable, ArtifactWriteFailed) as error:
        raise Unavailable(f"nothing was kept: {error}") from error


def _stream(app: IngestApp, stream_id: str) -> tuple[StreamSettings, str]:
    with app.database.read() as session:
        stream = session.get(Stream, stream_id)
        query = select(StreamRevision).where(StreamRevision.stream_id == stream_id)
        revision = session.scalars(query.order_by(StreamRevision.number.desc()).limit(1)).first()
    if stream is None or revision is None:
        raise NotFound(f"there is no stream with id {escape(stream_id, 40)}; see rekindle stream list")
    return StreamSettings.model_validate(revision.settings), stream.split_key


def _coming(
    stream_id: str,
    settings: StreamSettings,
    files: Sequence[Fetched],
    *,
    name: str,
    kind: Kind,
    actor: str,
) -> Coming:
    hashes = sorted(file.hash for file in files)
    whole = hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    shown = escape(name, MAX_NAME_CHARACTERS)
    return Coming(
        stream_id=stream_id,
        task=settings.task,
        kind=kind,
        name="anchor" if kind == "anchor" else shown,
        arrival_name=shown,
        arrival_hash=whole,
        bytes=sum(file.bytes for file in files),
        actor=actor,
    )


def _compare_and_commit(job: _Ingest) -> IngestReport:
    """Again if another batch came first; the stream's lock makes that rare."""
    for _ in range(COMPARISONS):
        with job.app.database.read() as session:
            found = commit.find_batch(session, job.coming)
            newest = commit.newest_batch(session, job.coming.stream_id)
        if found is not None:
            return _copy(job, found)
        try:
            return _once(replace(job, coming=replace(job.coming, newest_batch=newest)))
        except Moved:
            continue
    raise Unavailable("other batches of this stream kept coming first; try again")


def _copy(job: _Ingest, found: Batch) -> IngestReport:
    with job.app.database.write() as session:
        commit.record_arrival(session, job.coming, "copy", f"the same content as batch {found.id}", found.id)
    reason = f"the same content is batch {found.id} already ({found.name}); nothing was done"
    return _report_of(job, "copy", found, Counts(), reason)


def _once(job: _Ingest) -> IngestReport:
    for leftover in job.folder.glob("attempt.*"):
        leftover.unlink()
    scratch = Scratch(job.folder / "attempt.scratch")
    counts = Counts()
    try:
        return _read_and_record(job, scratch, counts)
    except Refused as refusal:
        seen = Counts(quarantined=counts.quarantined, reasons=counts.reasons)
        return _without_batch(job, scratch, "refused", refusal.message, seen)
    finally:
        scratch.close()


def _read_and_record(job: _Ingest, scratch: Scratch, counts: Counts) -> IngestReport:
    working_copy = job.folder / "attempt.parquet"
    _read(job, scratch, working_copy, counts)
    counts.leaked += _split(job, scratch)
    files = commit.store_files(job.app.store, scratch, working_copy, job.folder, job.coming.task)
    if not files.train + files.heldout:
        return _nothing_new(job, scratch, counts)
    with job.app.database.write() as session:
        batch = commit.record_batch(session, job.coming, scratch, files, counts)
    return _report_of(job, "accepted", batch, counts, None)


def _read(job: _Ingest, scratch: Scratch, working_copy: Path, counts: Counts) -> None:
    settings = job.settings
    try:
        normaliser = Normaliser(settings.task, settings.source, settings.split.group_by, settings.limits.max_nesting)
    except Unusable as problem:
        raise BadInput(f"{problem.reason}; change source.text_fields") from None
    with Writer(working_copy, snapshots.stage_schema(settings.task)) as writer:
        gatherer = Gatherer(
            database=job.app.database,
            stream_id=job.coming.stream_id,
            kind=job.coming.kind,
            compared=not job.coming.ad_hoc,
            normaliser=normaliser,
            max_rows=settings.limits.max_rows,
            scratch=scratch,
            writer=writer,
            counts=counts,
        )
        for file in job.files:
            records = readers.read(file.path, name=file.name, limits=settings.limits, normaliser=normaliser)
            gatherer.take(escape(file.name, MAX_NAME_CHARACTERS), records)
        gatherer.finish()


def _split(job: _Ingest, scratch: Scratch) -> int:
    """Decide who is held out; returns how many rows are dropped because they match held-out ones."""
    if job.coming.kind == "fixed":
        scratch.hold_all()
        return 0
    choice = split.choose(scratch.units(), share=job.settings.split.heldout, key=job.split_key)
    return scratch.settle(choice, key=job.split_key)


def _nothing_new(job: _Ingest, scratch: Scratch, counts: Counts) -> IngestReport:
    if counts.duplicates:
        reason = f"all its {counts.duplicates} documents are in the stream already; nothing was done"
        return _without_batch(job, scratch, "copy", reason, counts)
    reason = "every document in it matches one that is held out or trained on the other side; nothing was ingested"
    return _without_batch(job, scratch, "refused", reason, counts)


def _without_batch(job: _Ingest, scratch: Scratch, outcome: Outcome, reason: str, counts: Counts) -> IngestReport:
    with job.app.database.write() as session:
        commit.record_no_batch(session, job.coming, scratch, outcome, reason)
    return _report(job, outcome, counts, reason=reason)


def _report_of(job: _Ingest, outcome: Outcome, batch: Batch, counts: Counts, reason: str | None) -> IngestReport:
    return _report(
        job,
        outcome,
        counts,
        reason=reason,
        batch_id=batch.id,
        state=batch.state,
        documents=batch.documents if outcome == "accepted" else 0,
        train=batch.train_documents if outcome == "accepted" else 0,
        heldout=batch.heldout_documents if outcome == "accepted" else 0,
    )


def _report(job: _Ingest, outcome: Outcome, counts: Counts, **more: Any) -> IngestReport:
    return IngestReport(
        outcome=outcome,
        name=job.coming.name,
        kind=job.coming.kind,
        content_hash=job.coming.arrival_hash,
        duplicates=counts.duplicates,
        near_duplicates=counts.near_duplicates,
        conflicts=counts.conflicts,
        leaked=counts.leaked,
        quarantined=counts.quarantined,
        reasons=dict(counts.reasons),
        **more,
    )
