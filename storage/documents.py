"""Tables of what arrived: batches, files, documents kept of them, rows not kept, and how near-duplicates are found."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from storage.columns import Base, BigId, one_of, unique_where
from storage.states import BATCH_STATES


class Batch(Base):
    """Documents that arrived together. ``kind`` anchor stands for what the base knows, fixed for a fixed eval set."""

    __tablename__ = "batches"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(16))
    state_reason: Mapped[str | None] = mapped_column(Text)
    arrival_hash: Mapped[str] = mapped_column(String(64))
    snapshot_hash: Mapped[str] = mapped_column(String(64))
    synthetic: Mapped[bool] = mapped_column(default=False)
    documents: Mapped[int]
    train_documents: Mapped[int]
    heldout_documents: Mapped[int]
    duplicates: Mapped[int]
    near_duplicates: Mapped[int]
    conflicts: Mapped[int]
    leaked: Mapped[int]
    quarantined: Mapped[int]
    refusals: Mapped[int] = mapped_column(default=0)
    labels: Mapped[list[Any]]
    created_at: Mapped[datetime]
    drawn_as: Mapped[str | None] = mapped_column(Text)
    """Of a copy: the name under which rows of what it copies are drawn. Orders go by it, so both give the same rows."""
    __table_args__ = (
        one_of("kind", ("data", "anchor", "fixed")),
        one_of("state", BATCH_STATES),
        # Arrival is exactly once by content.
        UniqueConstraint("stream_id", "kind", "name", "arrival_hash"),
        unique_where("uq_batches_data_arrival", "stream_id", "arrival_hash", where="kind = 'data'"),
    )


class Arrival(Base):
    """One file (or push) as it came: accepted, a copy of an earlier one, or refused with the reason."""

    __tablename__ = "arrivals"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"))
    name: Mapped[str] = mapped_column(Text)
    arrival_hash: Mapped[str] = mapped_column(String(64))
    bytes: Mapped[int] = mapped_column(BigInteger)
    outcome: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(Text)
    batch_id: Mapped[int | None] = mapped_column(ForeignKey("batches.id"))
    created_at: Mapped[datetime]
    __table_args__ = (
        one_of("outcome", ("accepted", "copy", "refused")),
        UniqueConstraint("stream_id", "name", "arrival_hash"),
    )


class Document(Base):
    """One kept row of a batch; ``row`` counts from 0 in the batch's snapshot."""

    __tablename__ = "documents"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"))
    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"))
    row: Mapped[int]
    digest: Mapped[str] = mapped_column(String(64))
    content_digest: Mapped[str] = mapped_column(String(64))
    external_id: Mapped[str | None] = mapped_column(Text)
    split: Mapped[str] = mapped_column(String(8))
    cluster: Mapped[str] = mapped_column(String(64))
    label: Mapped[str | None] = mapped_column(Text)
    state: Mapped[str] = mapped_column(String(8))
    __table_args__ = (
        one_of("split", ("train", "heldout")),
        one_of("state", ("present", "erased")),
        UniqueConstraint("batch_id", "row"),
        Index("ix_documents_stream_digest", "stream_id", "digest"),
        Index("ix_documents_stream_content", "stream_id", "content_digest"),
        Index("ix_documents_stream_external", "stream_id", "external_id"),
        Index("ix_documents_stream_cluster", "stream_id", "cluster"),
    )


class DocumentSketch(Base):
    """MinHash signature of a document, to confirm a near-duplicate candidate."""

    __tablename__ = "document_sketches"
    document_id: Mapped[int] = mapped_column(ForeignKey("documents.id"), primary_key=True)
    signature: Mapped[bytes] = mapped_column(LargeBinary)


class DocumentBand(Base):
    """Locality-sensitive hash bands of the signatures: equal band, candidate pair."""

    __tablename__ = "document_bands"
    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"), primary_key=True)
    band: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    document_id: Mapped[int] = mapped_column(ForeignKey("documents.id"), primary_key=True)


class Quarantine(Base):
    """A row that was not kept: where it stood, why, and its first characters."""

    __tablename__ = "quarantine"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"))
    batch_id: Mapped[int | None] = mapped_column(ForeignKey("batches.id"), index=True)
    file: Mapped[str] = mapped_column(Text)
    line: Mapped[int]
    reason: Mapped[str] = mapped_column(Text)
    excerpt: Mapped[str] = mapped_column(Text)
