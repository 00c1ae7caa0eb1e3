"""Objects, and the manifests that name them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op


def objects() -> None:
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


def manifests() -> None:
    op.create_table(
        "manifests",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_manifests")),
    )


def manifest_entries() -> None:
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
