"""Copies of batches are drawn under the names of what they copy.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision: str | None = "0001"
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    op.add_column("batches", sa.Column("drawn_as", sa.Text(), nullable=True))


def downgrade() -> None:
    raise RuntimeError("the schema is never taken back; restore the copy that was made before the upgrade")
