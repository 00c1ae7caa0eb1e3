"""Decisions say in a word how they ended.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

RESULTS = "result IN ('promoted', 'refused', 'inconclusive', 'failed', 'cancelled', 'stale')"


def upgrade() -> None:
    _add_results()


def downgrade() -> None:
    raise RuntimeError("the schema is never taken back; restore the copy that was made before the upgrade")


def _add_results() -> None:
    """How each decision ended: where its plan does not tell, the sentence does."""
    # Both databases take a column together with its check; SQLite takes a check in no other way.
    op.execute(
        f"ALTER TABLE decisions ADD COLUMN result VARCHAR(16) CONSTRAINT ck_decisions_result_known CHECK ({RESULTS})"
    )
    op.execute(
        """
        UPDATE decisions SET result = CASE
            WHEN outcome LIKE 'refused by the gate: %' THEN 'refused'
            WHEN outcome LIKE 'inconclusive: %' THEN 'inconclusive'
            WHEN outcome LIKE 'stale: %' THEN 'stale'
            WHEN outcome = 'the stream was removed' THEN 'cancelled'
            ELSE coalesce(
                (SELECT CASE plans.state WHEN 'succeeded' THEN 'promoted' ELSE plans.state END
                 FROM plans WHERE plans.decision_id = decisions.id),
                'failed'
            )
        END
        WHERE closed_at IS NOT NULL
        """
    )
