"""The first schema.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
CHAINED = ("versions", "evaluations", "promotions", "events")
GENESIS = "0" * 64


def upgrade() -> None:
    _streams()
    _stream_revisions()
    _triggers()
    _objects()
    _manifests()
    _manifest_entries()
    _leases()
    _tokens()
    _chain_heads()
    _events()
    _decisions()
    _plans()
    _jobs()
    _versions()
    _batches()
    _arrivals()
    _documents()
    _document_sketches()
    _document_bands()
    _quarantine()
    _eval_sets()
    _firings()
    _attempts()
    _version_parents()
    _version_artifacts()
    _version_batches()
    _evaluations()
    _verdicts()
    _promotions()
    _close_cycles()
    heads = sa.table("chain_heads", sa.column("name", sa.String), sa.column("row_hash", sa.String))
    op.bulk_insert(heads, [{"name": name, "row_hash": GENESIS} for name in CHAINED])


def downgrade() -> None:
    raise RuntimeError("the schema is never taken back; restore the copy that was made before the upgrade")


def _later(table: str, column: str) -> list[sa.ForeignKeyConstraint]:
    """A reference to a table that is not there yet: SQLite takes it in the definition, and only there."""
    if op.get_bind().dialect.name != "sqlite":
        return []
    return [sa.ForeignKeyConstraint([column], ["versions.id"], name=op.f(f"fk_{table}_{column}_versions"))]


def _close_cycles() -> None:
    if op.get_bind().dialect.name == "sqlite":
        return
    for table, column in (("jobs", "version_id"), ("decisions", "parent_version_id")):
        op.create_foreign_key(op.f(f"fk_{table}_{column}_versions"), table, "versions", [column], ["id"])


def _streams() -> None:
    op.create_table(
        "streams",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("task", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("split_key", sa.String(length=64), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('registering', 'active', 'paused', 'failed', 'archived')", name=op.f("ck_streams_state_known")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_streams")),
    )
    op.create_index(
        "uq_streams_active_name",
        "streams",
        ["name"],
        unique=True,
        sqlite_where=sa.text("archived_at IS NULL"),
        postgresql_where=sa.text("archived_at IS NULL"),
    )


def _stream_revisions() -> None:
    op.create_table(
        "stream_revisions",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("stream_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("origins", sa.JSON(), nullable=False),
        sa.Column("settings_hash", sa.String(length=64), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_stream_revisions_stream_id_streams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stream_revisions")),
        sa.UniqueConstraint("stream_id", "number", name=op.f("uq_stream_revisions_stream_id_number")),
    )


def _triggers() -> None:
    op.create_table(
        "triggers",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("stream_id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("next_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('active', 'paused', 'removed')", name=op.f("ck_triggers_state_known")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_triggers_stream_id_streams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_triggers")),
        sa.UniqueConstraint("stream_id", "name", name=op.f("uq_triggers_stream_id_name")),
    )


def _objects() -> None:
    op.create_table(
        "objects",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("marked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_objects")),
    )
    op.create_index(op.f("ix_objects_marked_at"), "objects", ["marked_at"], unique=False)


def _manifests() -> None:
    op.create_table(
        "manifests",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_manifests")),
    )


def _manifest_entries() -> None:
    op.create_table(
        "manifest_entries",
        sa.Column("manifest_hash", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.Column("object_hash", sa.String(length=64), nullable=False),
        sa.CheckConstraint("kind IN ('file', 'tensor')", name=op.f("ck_manifest_entries_kind_known")),
        sa.ForeignKeyConstraint(
            ["manifest_hash"], ["manifests.hash"], name=op.f("fk_manifest_entries_manifest_hash_manifests")
        ),
        sa.ForeignKeyConstraint(
            ["object_hash"], ["objects.hash"], name=op.f("fk_manifest_entries_object_hash_objects")
        ),
        sa.PrimaryKeyConstraint("manifest_hash", "kind", "path", name=op.f("pk_manifest_entries")),
    )
    op.create_index(op.f("ix_manifest_entries_object_hash"), "manifest_entries", ["object_hash"], unique=False)


def _leases() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("holder", sa.String(length=255), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )


def _tokens() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("role IN ('admin', 'operator', 'reader')", name=op.f("ck_tokens_role_known")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_tokens_hash")),
        sa.UniqueConstraint("name", name=op.f("uq_tokens_name")),
    )


def _chain_heads() -> None:
    op.create_table(
        "chain_heads",
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("row_hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_chain_heads")),
    )


def _events() -> None:
    op.create_table(
        "events",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("stream_id", sa.String(length=32), nullable=True),
        sa.Column("subject", sa.String(length=32), nullable=False),
        sa.Column("subject_id", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("from_state", sa.String(length=16), nullable=True),
        sa.Column("to_state", sa.String(length=16), nullable=True),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("previous_hash", sa.String(length=64), nullable=False),
        sa.Column("row_hash", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_events_stream_id_streams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_stream_id"), "events", ["stream_id"], unique=False)
    op.create_index("ix_events_subject", "events", ["subject", "subject_id"], unique=False)


def _decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("stream_id", sa.String(length=32), nullable=False),
        sa.Column("revision_id", BIG_ID, nullable=False),
        sa.Column("parent_version_id", BIG_ID, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("requested", sa.String(length=63), nullable=False),
        sa.Column("strategy", sa.String(length=63), nullable=True),
        sa.Column("batches", sa.JSON(), nullable=False),
        sa.Column("signals", sa.JSON(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("alternatives", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('measuring', 'decided', 'closed')", name=op.f("ck_decisions_state_known")),
        *_later("decisions", "parent_version_id"),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["stream_revisions.id"], name=op.f("fk_decisions_revision_id_stream_revisions")
        ),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_decisions_stream_id_streams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
        sa.UniqueConstraint("key", name=op.f("uq_decisions_key")),
    )
    op.create_index(op.f("ix_decisions_stream_id"), "decisions", ["stream_id"], unique=False)
    op.create_index(
        "uq_decisions_open",
        "decisions",
        ["stream_id"],
        unique=True,
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    )


def _plans() -> None:
    op.create_table(
        "plans",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("stream_id", sa.String(length=32), nullable=False),
        sa.Column("decision_id", BIG_ID, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('open', 'succeeded', 'failed', 'cancelled', 'stale')", name=op.f("ck_plans_state_known")
        ),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name=op.f("fk_plans_decision_id_decisions")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_plans_stream_id_streams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_plans")),
        sa.UniqueConstraint("decision_id", name=op.f("uq_plans_decision_id")),
    )
    op.create_index(
        "uq_plans_open",
        "plans",
        ["stream_id"],
        unique=True,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("stream_id", sa.String(length=32), nullable=False),
        sa.Column("decision_id", BIG_ID, nullable=True),
        sa.Column("plan_id", BIG_ID, nullable=True),
        sa.Column("version_id", BIG_ID, nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("max_attempts", sa.Integer(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("cpus", sa.Integer(), nullable=False),
        sa.Column("gpus", sa.Integer(), nullable=False),
        sa.Column("timeout_s", sa.Integer(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("needs", sa.JSON(), nullable=False),
        sa.Column("progress", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("artifacts", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "kind IN ('measure', 'train', 'fit', 'generate', 'evaluate')", name=op.f("ck_jobs_kind_known")
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'submitted', 'running', 'succeeded', 'failed', 'lost', 'cancelled')",
            name=op.f("ck_jobs_state_known"),
        ),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name=op.f("fk_jobs_decision_id_decisions")),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name=op.f("fk_jobs_plan_id_plans")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_jobs_stream_id_streams")),
        *_later("jobs", "version_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("key", name=op.f("uq_jobs_key")),
        sa.UniqueConstraint("plan_id", "name", "position", name=op.f("uq_jobs_plan_id_name_position")),
    )
    op.create_index(op.f("ix_jobs_decision_id"), "jobs", ["decision_id"], unique=False)
    op.create_index(op.f("ix_jobs_plan_id"), "jobs", ["plan_id"], unique=False)
    op.create_index("ix_jobs_state", "jobs", ["state", "priority", "id"], unique=False)
    op.create_index(op.f("ix_jobs_stream_id"), "jobs", ["stream_id"], unique=False)
    op.create_index(op.f("ix_jobs_version_id"), "jobs", ["version_id"], unique=False)


def _versions() -> None:
    op.create_table(
        "versions",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("stream_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("strategy", sa.String(length=63), nullable=False),
        sa.Column("decision_id", BIG_ID, nullable=True),
        sa.Column("job_id", BIG_ID, nullable=True),
        sa.Column("model_hash", sa.String(length=64), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("pinned", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("previous_hash", sa.String(length=64), nullable=False),
        sa.Column("row_hash", sa.String(length=64), nullable=False),
        sa.CheckConstraint(
            "state IN ('candidate', 'evaluated', 'live', 'retired', 'rejected')", name=op.f("ck_versions_state_known")
        ),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name=op.f("fk_versions_decision_id_decisions")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_versions_job_id_jobs")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_versions_stream_id_streams")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_versions")),
        sa.UniqueConstraint("stream_id", "number", name=op.f("uq_versions_stream_id_number")),
    )
    op.create_index(
        "uq_versions_live",
        "versions",
        ["stream_id"],
        unique=True,
        sqlite_where=sa.text("state = 'live'"),
        postgresql_where=sa.text("state = 'live'"),
    )


def _batches() -> None:
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


def _arrivals() -> None:
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


def _documents() -> None:
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


def _document_sketches() -> None:
    op.create_table(
        "document_sketches",
        sa.Column("document_id", BIG_ID, nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"], ["documents.id"], name=op.f("fk_document_sketches_document_id_documents")
        ),
        sa.PrimaryKeyConstraint("document_id", name=op.f("pk_document_sketches")),
    )


def _document_bands() -> None:
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


def _quarantine() -> None:
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


def _eval_sets() -> None:
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


def _firings() -> None:
    op.create_table(
        "firings",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("trigger_id", BIG_ID, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("verdict", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("decision_id", BIG_ID, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "verdict IN ('fired', 'deferred', 'skipped', 'declined')", name=op.f("ck_firings_verdict_known")
        ),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name=op.f("fk_firings_decision_id_decisions")),
        sa.ForeignKeyConstraint(["trigger_id"], ["triggers.id"], name=op.f("fk_firings_trigger_id_triggers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_firings")),
        sa.UniqueConstraint("trigger_id", "due_at", name=op.f("uq_firings_trigger_id_due_at")),
    )


def _attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("job_id", BIG_ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("directory", sa.Text(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("boot_id", sa.String(length=64), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("process_started", sa.BigInteger(), nullable=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("cpus", sa.Integer(), nullable=False),
        sa.Column("gpus", sa.JSON(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('queued', 'submitted', 'running', 'succeeded', 'failed', 'lost', 'cancelled')",
            name=op.f("ck_attempts_state_known"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_attempts_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_attempts")),
        sa.UniqueConstraint("job_id", "number", name=op.f("uq_attempts_job_id_number")),
    )


def _version_parents() -> None:
    op.create_table(
        "version_parents",
        sa.Column("child_id", BIG_ID, nullable=False),
        sa.Column("parent_id", BIG_ID, nullable=False),
        sa.Column("role", sa.String(length=32), nullable=False),
        sa.Column("weight", sa.Double(), nullable=False),
        sa.CheckConstraint("child_id <> parent_id", name=op.f("ck_version_parents_not_its_own_parent")),
        sa.ForeignKeyConstraint(["child_id"], ["versions.id"], name=op.f("fk_version_parents_child_id_versions")),
        sa.ForeignKeyConstraint(["parent_id"], ["versions.id"], name=op.f("fk_version_parents_parent_id_versions")),
        sa.PrimaryKeyConstraint("child_id", "parent_id", "role", name=op.f("pk_version_parents")),
    )
    op.create_index(op.f("ix_version_parents_parent_id"), "version_parents", ["parent_id"], unique=False)


def _version_artifacts() -> None:
    op.create_table(
        "version_artifacts",
        sa.Column("version_id", BIG_ID, nullable=False),
        sa.Column("role", sa.String(length=63), nullable=False),
        sa.Column("manifest_hash", sa.String(length=64), nullable=False),
        sa.Column("job_id", BIG_ID, nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_version_artifacts_job_id_jobs")),
        sa.ForeignKeyConstraint(
            ["manifest_hash"], ["manifests.hash"], name=op.f("fk_version_artifacts_manifest_hash_manifests")
        ),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_version_artifacts_version_id_versions")),
        sa.PrimaryKeyConstraint("version_id", "role", name=op.f("pk_version_artifacts")),
    )
    op.create_index(op.f("ix_version_artifacts_manifest_hash"), "version_artifacts", ["manifest_hash"], unique=False)


def _version_batches() -> None:
    op.create_table(
        "version_batches",
        sa.Column("version_id", BIG_ID, nullable=False),
        sa.Column("batch_id", BIG_ID, nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("snapshot_hash", sa.String(length=64), nullable=False),
        sa.Column("rows", sa.LargeBinary(), nullable=False),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.Column("samples", sa.Integer(), nullable=False),
        sa.CheckConstraint("role IN ('trained', 'replayed')", name=op.f("ck_version_batches_role_known")),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name=op.f("fk_version_batches_batch_id_batches")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_version_batches_version_id_versions")),
        sa.PrimaryKeyConstraint("version_id", "batch_id", "role", name=op.f("pk_version_batches")),
    )
    op.create_index(op.f("ix_version_batches_batch_id"), "version_batches", ["batch_id"], unique=False)


def _evaluations() -> None:
    op.create_table(
        "evaluations",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("version_id", BIG_ID, nullable=False),
        sa.Column("eval_set_id", BIG_ID, nullable=False),
        sa.Column("eval_set_hash", sa.String(length=64), nullable=False),
        sa.Column("settings_hash", sa.String(length=64), nullable=False),
        sa.Column("metric", sa.String(length=32), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("value_select", sa.Double(), nullable=True),
        sa.Column("value_judge", sa.Double(), nullable=True),
        sa.Column("examples", sa.Integer(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("results_hash", sa.String(length=64), nullable=False),
        sa.Column("job_id", BIG_ID, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("previous_hash", sa.String(length=64), nullable=False),
        sa.Column("row_hash", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["eval_set_id"], ["eval_sets.id"], name=op.f("fk_evaluations_eval_set_id_eval_sets")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_evaluations_job_id_jobs")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_evaluations_version_id_versions")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
        sa.UniqueConstraint(
            "version_id",
            "eval_set_hash",
            "settings_hash",
            name=op.f("uq_evaluations_version_id_eval_set_hash_settings_hash"),
        ),
    )
    op.create_index(op.f("ix_evaluations_eval_set_id"), "evaluations", ["eval_set_id"], unique=False)


def _verdicts() -> None:
    op.create_table(
        "verdicts",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("version_id", BIG_ID, nullable=False),
        sa.Column("compared_with_id", BIG_ID, nullable=False),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("mode", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("mode IN ('enforce', 'record')", name=op.f("ck_verdicts_mode_known")),
        sa.CheckConstraint("outcome IN ('pass', 'fail', 'inconclusive')", name=op.f("ck_verdicts_outcome_known")),
        sa.ForeignKeyConstraint(
            ["compared_with_id"], ["versions.id"], name=op.f("fk_verdicts_compared_with_id_versions")
        ),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_verdicts_version_id_versions")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_verdicts")),
    )
    op.create_index(op.f("ix_verdicts_version_id"), "verdicts", ["version_id"], unique=False)


def _promotions() -> None:
    op.create_table(
        "promotions",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("stream_id", sa.String(length=32), nullable=False),
        sa.Column("version_id", BIG_ID, nullable=False),
        sa.Column("previous_version_id", BIG_ID, nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("verdict_id", BIG_ID, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("previous_hash", sa.String(length=64), nullable=False),
        sa.Column("row_hash", sa.String(length=64), nullable=False),
        sa.CheckConstraint(
            "kind IN ('initial', 'promotion', 'recorded', 'forced', 'rollback')", name=op.f("ck_promotions_kind_known")
        ),
        sa.ForeignKeyConstraint(
            ["previous_version_id"], ["versions.id"], name=op.f("fk_promotions_previous_version_id_versions")
        ),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_promotions_stream_id_streams")),
        sa.ForeignKeyConstraint(["verdict_id"], ["verdicts.id"], name=op.f("fk_promotions_verdict_id_verdicts")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_promotions_version_id_versions")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotions")),
    )
    op.create_index(op.f("ix_promotions_stream_id"), "promotions", ["stream_id"], unique=False)
