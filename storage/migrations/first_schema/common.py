"""What several tables of the first schema share."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def later(table: str, column: str) -> list[sa.ForeignKeyConstraint]:
    """A reference to a table that is not there yet: SQLite takes it in the definition, and only there."""
    if op.get_bind().dialect.name != "sqlite":
        return []
    return [sa.ForeignKeyConstraint([column], ["versions.id"], name=op.f(f"fk_{table}_{column}_versions"))]


def close_cycles() -> None:
    if op.get_bind().dialect.name == "sqlite":
        return
    for table, column in (("jobs", "version_id"), ("decisions", "parent_version_id")):
        op.create_foreign_key(op.f(f"fk_{table}_{column}_versions"), table, "versions", [column], ["id"])
