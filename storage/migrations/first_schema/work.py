"""Decisions, plans, jobs and their attempts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.first_schema.common import BIG_ID, later


def decisions() -> None:
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
        *later("decisions", "parent_version_id"),
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


def plans() -> None:
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


def jobs() -> None:
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
        *later("jobs", "version_id"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("key", name=op.f("uq_jobs_key")),
        sa.UniqueConstraint("plan_id", "name", "position", name=op.f("uq_jobs_plan_id_name_position")),
    )
    op.create_index(op.f("ix_jobs_decision_id"), "jobs", ["decision_id"], unique=False)
    op.create_index(op.f("ix_jobs_plan_id"), "jobs", ["plan_id"], unique=False)
    op.create_index("ix_jobs_state", "jobs", ["state", "priority", "id"], unique=False)
    op.create_index(op.f("ix_jobs_stream_id"), "jobs", ["stream_id"], unique=False)
    op.create_index(op.f("ix_jobs_version_id"), "jobs", ["version_id"], unique=False)


def attempts() -> None:
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
