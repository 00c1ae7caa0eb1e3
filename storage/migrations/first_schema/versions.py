"""Versions, what is behind them, and how they were judged."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.first_schema.common import BIG_ID


def versions() -> None:
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


def version_parents() -> None:
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


def version_artifacts() -> None:
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


def version_batches() -> None:
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


def evaluations() -> None:
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


def verdicts() -> None:
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


def promotions() -> None:
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
