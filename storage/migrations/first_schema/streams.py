"""Streams, their revisions and triggers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.first_schema.common import BIG_ID


def streams() -> None:
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


def stream_revisions() -> None:
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


def triggers() -> None:
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


def firings() -> None:
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
