"""Batches, documents, sketches, quarantine and eval sets."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.first_schema.common import BIG_ID


def batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("stream_id", sa.String(length=32), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("arrival_hash", sa.String(length=64), nullable=False),
        sa.Column("snapshot_hash", sa.String(length=64), nullable=False),
        sa.Column("synthetic", sa.Boolean(), nullable=False),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.Column("train_documents", sa.Integer(), nullable=False),
        sa.Column("heldout_documents", sa.Integer(), nullable=False),
        sa.Column("duplicates", sa.Integer(), nullable=False),
        sa.Column("near_duplicates", sa.Integer(), nullable=False),
        sa.Column("conflicts", sa.Integer(), nullable=False),
        sa.Column("leaked", sa.Integer(), nullable=False),
        sa.Column("quarantined", sa.Integer(), nullable=False),
        sa.Column("refusals", sa.Integer(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('data', 'anchor', 'fixed')", name=op.f("ck_batches_kind_known")),
        sa.CheckConstraint("state IN ('pending', 'trained', 'held', 'erased')", name=op.f("ck_batches_state_known")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_batches_stream_id_streams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
        sa.UniqueConstraint(
            "stream_id", "kind", "name", "arrival_hash", name=op.f("uq_batches_stream_id_kind_name_arrival_hash")
        ),
    )
    op.create_index(op.f("ix_batches_stream_id"), "batches", ["stream_id"], unique=False)
    op.create_index(
        "uq_batches_data_arrival",
        "batches",
        ["stream_id", "arrival_hash"],
        unique=True,
        sqlite_where=sa.text("kind = 'data'"),
        postgresql_where=sa.text("kind = 'data'"),
    )


def arrivals() -> None:
    op.create_table(
        "arrivals",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("stream_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("arrival_hash", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("batch_id", BIG_ID, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("outcome IN ('accepted', 'copy', 'refused')", name=op.f("ck_arrivals_outcome_known")),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_arrivals_batch_id_batches")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_arrivals_stream_id_streams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_arrivals")),
        sa.UniqueConstraint("stream_id", "name", "arrival_hash", name=op.f("uq_arrivals_stream_id_name_arrival_hash")),
    )


def documents() -> None:
    op.create_table(
        "documents",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("stream_id", sa.String(length=32), nullable=False),
        sa.Column("batch_id", BIG_ID, nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("content_digest", sa.String(length=64), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("split", sa.String(length=8), nullable=False),
        sa.Column("cluster", sa.String(length=64), nullable=False),
        sa.Column("label", sa.Text(), nullable=True),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.CheckConstraint("split IN ('train', 'heldout')", name=op.f("ck_documents_split_known")),
        sa.CheckConstraint("state IN ('present', 'erased')", name=op.f("ck_documents_state_known")),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_documents_batch_id_batches")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_documents_stream_id_streams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_documents")),
        sa.UniqueConstraint("batch_id", "row", name=op.f("uq_documents_batch_id_row")),
    )
    op.create_index("ix_documents_stream_cluster", "documents", ["stream_id", "cluster"], unique=False)
    op.create_index("ix_documents_stream_content", "documents", ["stream_id", "content_digest"], unique=False)
    op.create_index("ix_documents_stream_digest", "documents", ["stream_id", "digest"], unique=False)
    op.create_index("ix_documents_stream_external", "documents", ["stream_id", "external_id"], unique=False)


def document_sketches() -> None:
    op.create_table(
        "document_sketches",
        sa.Column("document_id", BIG_ID, nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name=op.f("fk_document_sketches_document_id_documents")
        ),
        sa.PrimaryKeyConstraint("document_id", name=op.f("pk_document_sketches")),
    )


def document_bands() -> None:
    op.create_table(
        "document_bands",
        sa.Column("stream_id", sa.String(length=32), nullable=False),
        sa.Column("band", sa.Integer(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("document_id", BIG_ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name=op.f("fk_document_bands_document_id_documents")
        ),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_document_bands_stream_id_streams")),
        sa.PrimaryKeyConstraint("stream_id", "band", "value", "document_id", name=op.f("pk_document_bands")),
    )


def quarantine() -> None:
    op.create_table(
        "quarantine",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("stream_id", sa.String(length=32), nullable=False),
        sa.Column("batch_id", BIG_ID, nullable=True),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("excerpt", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_quarantine_batch_id_batches")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_quarantine_stream_id_streams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine")),
    )
    op.create_index(op.f("ix_quarantine_batch_id"), "quarantine", ["batch_id"], unique=False)


def eval_sets() -> None:
    op.create_table(
        "eval_sets",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("stream_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.Column("batch_id", BIG_ID, nullable=True),
        sa.Column("members", sa.JSON(), nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('anchor', 'fixed', 'batch', 'pool')", name=op.f("ck_eval_sets_kind_known")),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_eval_sets_batch_id_batches")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_eval_sets_stream_id_streams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_eval_sets")),
        sa.UniqueConstraint("stream_id", "name", "content_hash", name=op.f("uq_eval_sets_stream_id_name_content_hash")),
    )
