"""A manifest may lay patches over an earlier model's tensors; a measure job is told another way what it may cost.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision: str | None = "0003"
branch_labels: str | None = None
depends_on: str | None = None

KINDS = "kind IN ('file', 'tensor', 'patch')"
JOBS = sa.table("jobs", sa.column("id"), sa.column("kind"), sa.column("spec", sa.JSON))


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _make_entries_anew()
    else:
        op.drop_constraint(op.f("ck_manifest_entries_kind_known"), "manifest_entries", type_="check")
        op.create_check_constraint(op.f("ck_manifest_entries_kind_known"), "manifest_entries", KINDS)
    _tell_measure_jobs()


def downgrade() -> None:
    raise RuntimeError("the schema is never taken back; restore the copy that was made before the upgrade")


def _make_entries_anew() -> None:
    """SQLite changes no constraint of a table: a new one takes its rows."""
    op.rename_table("manifest_entries", "manifest_entries_before")
    op.drop_index(op.f("ix_manifest_entries_object_hash"), "manifest_entries_before")
    made = op.create_table(
        "manifest_entries",
        sa.Column("manifest_hash", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("path", sa.String(length=512), nullable=False),
        sa.Column("object_hash", sa.String(length=64), nullable=False),
        sa.CheckConstraint(KINDS, name=op.f("ck_manifest_entries_kind_known")),
        sa.ForeignKeyConstraint(
            ["manifest_hash"], ["manifests.hash"], name=op.f("fk_manifest_entries_manifest_hash_manifests")
        ),
        sa.ForeignKeyConstraint(
            ["object_hash"], ["objects.hash"], name=op.f("fk_manifest_entries_object_hash_objects")
        ),
        sa.PrimaryKeyConstraint("manifest_hash", "kind", "path", name=op.f("pk_manifest_entries")),
    )
    before = sa.table("manifest_entries_before", *(sa.column(one.name) for one in made.columns))
    op.execute(sa.insert(made).from_select(made.columns.keys(), sa.select(before)))
    op.drop_table("manifest_entries_before")
    op.create_index(op.f("ix_manifest_entries_object_hash"), "manifest_entries", ["object_hash"])


def _tell_measure_jobs() -> None:
    """Jobs that wait, and those that may be asked for again, must be readable; each on its own, for specs are large."""
    bind = op.get_bind()
    for key in bind.scalars(sa.select(JOBS.c.id).where(JOBS.c.kind == "measure")).all():
        spec = bind.scalars(sa.select(JOBS.c.spec).where(JOBS.c.id == key)).one()
        work = {name: value for name, value in spec["work"].items() if name != "old_in_full"}
        bind.execute(sa.update(JOBS).where(JOBS.c.id == key).values(spec={**spec, "work": work}))
