"""The first schema.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.migrations.first_schema import artifacts, common, data, streams, system, versions, work

revision = "0001"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None

CHAINED = ("versions", "evaluations", "promotions", "events")
GENESIS = "0" * 64


def upgrade() -> None:
    streams.streams()
    streams.stream_revisions()
    streams.triggers()
    artifacts.objects()
    artifacts.manifests()
    artifacts.manifest_entries()
    system.leases()
    system.tokens()
    system.chain_heads()
    system.events()
    work.decisions()
    work.plans()
    work.jobs()
    versions.versions()
    data.batches()
    data.arrivals()
    data.documents()
    data.document_sketches()
    data.document_bands()
    data.quarantine()
    data.eval_sets()
    streams.firings()
    work.attempts()
    versions.version_parents()
    versions.version_artifacts()
    versions.version_batches()
    versions.evaluations()
    versions.verdicts()
    versions.promotions()
    common.close_cycles()
    heads = sa.table("chain_heads", sa.column("name", sa.String), sa.column("row_hash", sa.String))
    op.bulk_insert(heads, [{"name": name, "row_hash": GENESIS} for name in CHAINED])


def downgrade() -> None:
    raise RuntimeError("the schema is never taken back; restore the copy that was made before the upgrade")
