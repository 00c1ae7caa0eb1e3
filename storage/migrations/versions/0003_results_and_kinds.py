"""Decisions say in a word how they ended, jobs are called what they do, and what nothing reads is gone.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from alembic import op

from storage.migrations.first_schema.common import BIG_ID

revision = "0003"
down_revision: str | None = "0002"
branch_labels: str | None = None
depends_on: str | None = None

RESULTS = "result IN ('promoted', 'refused', 'inconclusive', 'failed', 'cancelled', 'stale')"
KINDS = "kind IN ('measure', 'train', 'proxy', 'fit', 'merge', 'probe', 'evaluate')"
STATES = "state IN ('queued', 'submitted', 'running', 'succeeded', 'failed', 'lost', 'cancelled')"
REFERRING = ("versions", "version_artifacts", "evaluations")
"""Tables that refer to jobs without an index: SQLite would read all of each once a job."""
JOBS = sa.table(
    "jobs", sa.column("id"), sa.column("kind"), sa.column("spec", sa.JSON), sa.column("result", sa.JSON(True))
)
PLANS = sa.table("plans", sa.column("id"), sa.column("spec", sa.JSON))


def upgrade() -> None:
    _add_results()
    _rewrite(PLANS, _without_parents)
    if op.get_bind().dialect.name == "sqlite":
        _make_jobs_anew()
    else:
        _alter_jobs()
    _rewrite(JOBS, _called_what_it_does, sa.column("kind") == "fit")


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


def _alter_jobs() -> None:
    op.drop_constraint(op.f("uq_jobs_plan_id_name_position"), "jobs", type_="unique")
    op.drop_column("jobs", "position")
    op.create_unique_constraint(op.f("uq_jobs_plan_id_name"), "jobs", ["plan_id", "name"])
    op.drop_constraint(op.f("ck_jobs_kind_known"), "jobs", type_="check")
    op.create_check_constraint(op.f("ck_jobs_kind_known"), "jobs", KINDS)


def _make_jobs_anew() -> None:
    """SQLite changes no constraint of a table: a new one takes its rows, and references are checked at the commit."""
    for table in REFERRING:
        op.create_index(f"ix_{table}_0003", table, ["job_id"])
    op.execute("PRAGMA defer_foreign_keys = ON")
    op.execute("CREATE TABLE jobs_before AS SELECT * FROM jobs")
    op.drop_table("jobs")
    made = _jobs()
    before = sa.table("jobs_before", *(sa.column(one.name) for one in made.columns))
    op.execute(sa.insert(made).from_select(made.columns.keys(), sa.select(before)))
    op.drop_table("jobs_before")
    for table in REFERRING:
        op.drop_index(f"ix_{table}_0003")


def _jobs() -> sa.Table:
    made = op.create_table(
        "jobs",
        sa.Column("id", BIG_ID, nullable=False),
        sa.Column("stream_id", sa.String(length=32), nullable=False),
        sa.Column("decision_id", BIG_ID, nullable=True),
        sa.Column("plan_id", BIG_ID, nullable=True),
        sa.Column("version_id", BIG_ID, nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
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
        sa.CheckConstraint(KINDS, name=op.f("ck_jobs_kind_known")),
        sa.CheckConstraint(STATES, name=op.f("ck_jobs_state_known")),
        sa.ForeignKeyConstraint(["decision_id"], ["decisions.id"], name=op.f("fk_jobs_decision_id_decisions")),
        sa.ForeignKeyConstraint(["plan_id"], ["plans.id"], name=op.f("fk_jobs_plan_id_plans")),
        sa.ForeignKeyConstraint(["stream_id"], ["streams.id"], name=op.f("fk_jobs_stream_id_streams")),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name=op.f("fk_jobs_version_id_versions")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("key", name=op.f("uq_jobs_key")),
        sa.UniqueConstraint("plan_id", "name", name=op.f("uq_jobs_plan_id_name")),
    )
    for column in ("decision_id", "plan_id", "stream_id", "version_id"):
        op.create_index(op.f(f"ix_jobs_{column}"), "jobs", [column])
    op.create_index("ix_jobs_state", "jobs", ["state", "priority", "id"])
    return made


def _rewrite(table: sa.TableClause, change: Callable[[dict[str, Any]], dict[str, Any]], *only: Any) -> None:
    """Each row after the other: specs and results are large."""
    bind = op.get_bind()
    for key in bind.scalars(sa.select(table.c.id).where(*only)).all():
        row = bind.execute(sa.select(table).where(table.c.id == key)).mappings().one()
        bind.execute(sa.update(table).where(table.c.id == key).values(change(dict(row))))


def _without_parents(plan: dict[str, Any]) -> dict[str, Any]:
    """Nothing ever read a plan's further parents."""
    spec = {key: value for key, value in plan["spec"].items() if key != "parents"}
    jobs = {name: _named(template) for name, template in spec.get("jobs", {}).items()}
    return {"spec": {**spec, "jobs": jobs}}


def _called_what_it_does(job: dict[str, Any]) -> dict[str, Any]:
    """Whatever is neither measuring, training nor evaluating was called a fit."""
    work = _named(job["spec"]["work"])
    if "template" in work:
        work["template"] = _named(work["template"])
    result = None if job["result"] is None else {**job["result"], "kind": work["kind"]}
    return {"kind": work["kind"], "spec": {**job["spec"], "work": work}, "result": result}


def _named(one: dict[str, Any]) -> dict[str, Any]:
    """RegMix's regression is a fit everywhere."""
    return {**one, "kind": "fit"} if one["kind"] == "regmix" else dict(one)
