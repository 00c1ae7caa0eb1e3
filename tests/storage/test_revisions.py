"""What each revision makes of the rows of an older home, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, MetaData, exc, func, insert, select

from storage import schema
from storage.database import Database, now
from storage.tables import Attempt, Decision, Job, ManifestEntry, Plan, Version
from strategies.contract import FitTemplate, JobResult, QueuedSpec
from strategies.contract import Plan as PlanRecord
from tests.strategies import makers

STREAM = {"id": "s", "name": "inconclusive", "task": "causal-lm", "state": "active", "split_key": "k"}
REVISION = {"id": 1, "stream_id": "s", "number": 1, "settings": {}, "origins": {}, "settings_hash": "h", "actor": "me"}
VERSION = {
    **{"stream_id": "s", "state": "live", "strategy": "naive", "model_hash": "m", "facts": {}, "pinned": False},
    **{"previous_hash": "p", "row_hash": "r"},
}
DECISION = {
    **{"stream_id": "s", "revision_id": 1, "parent_version_id": 1, "state": "closed", "requested": "auto"},
    **{"batches": [], "signals": {}, "settings": {}, "reason": "r", "alternatives": [], "actor": "me"},
}
JOB = {
    **{"stream_id": "s", "decision_id": 1, "plan_id": 1, "position": 0, "state": "succeeded", "attempt": 1},
    **{"max_attempts": 3, "priority": 0, "cpus": 1, "gpus": 0, "timeout_s": 60, "needs": [], "progress": {}},
    **{"cancel_requested": False},
}
ATTEMPT = {"number": 1, "state": "succeeded", "directory": "/d", "host": "h", "epoch": 1, "cpus": 1, "gpus": []}
ENDS = (
    # The plan's state, the sentence, and what both come to; the stream's name opens the sentence of what went live.
    ("succeeded", "refused by the gate: anchor: the loss rises", "refused"),
    ("succeeded", "inconclusive: too few documents", "inconclusive"),
    ("succeeded", "inconclusive/2 is live (promotion): better", "promoted"),
    ("failed", "job 3 failed: no memory", "failed"),
    ("cancelled", "job 3 cancelled: asked for", "cancelled"),
    ("stale", "stale: the parent version is no longer live", "stale"),
    (None, "stale: batch 3 is held; the others are tried again", "stale"),
    (None, "the stream was removed", "cancelled"),
    (None, "measuring failed: no memory", "failed"),
)


class Old:
    """A database at an earlier revision, and a way to put rows into its tables as they were."""

    def __init__(self, database: Database, revision: str) -> None:
        self.database = database
        with database.writing_connection() as connection:
            command.upgrade(schema.config(connection), revision)

    def add(self, **rows: list[dict[str, Any]]) -> None:
        """Rows by table, in the order of their references."""
        with self.database.writing_connection() as connection:
            for table, given in rows.items():
                self._insert(connection, table, given)

    @staticmethod
    def _insert(connection: Connection, name: str, rows: list[dict[str, Any]]) -> None:
        metadata = MetaData()
        metadata.reflect(connection, only=[name], resolve_fks=False)
        table = metadata.tables[name]
        stamps = {one: now() for one in ("created_at", "started_at") if one in table.columns}
        for row in rows:
            connection.execute(insert(table).values({**stamps, **row}))


@pytest.fixture
def old(empty_url: str) -> Iterator[Old]:
    """A stream with a live version and an open decision, before decisions said how they ended."""
    database = Database.open(empty_url)
    home = Old(database, "0002")
    decision = {**DECISION, "id": 1, "key": "open", "state": "decided"}
    home.add(
        streams=[STREAM],
        stream_revisions=[REVISION],
        versions=[{**VERSION, "id": 1, "number": 1}],
        decisions=[decision],
    )
    yield home
    database.close()


def test_how_a_decision_ended_is_read_from_its_plan_and_its_sentence(old: Old) -> None:
    closed = [
        {**DECISION, "id": at, "key": f"k{at}", "outcome": sentence, "closed_at": now()}
        for at, (_, sentence, _) in enumerate(ENDS, start=2)
    ]
    plans = [
        {"id": at, "stream_id": "s", "decision_id": at, "state": state, "spec": {}}
        for at, (state, _, _) in enumerate(ENDS, start=2)
        if state is not None
    ]
    old.add(decisions=closed, plans=plans)
    old.database.upgrade()
    with old.database.read() as session:
        found = session.scalars(select(Decision).order_by(Decision.id)).all()
        assert [one.result for one in found] == [None, *(result for _, _, result in ENDS)]
        assert [one.outcome for one in found[1:]] == [sentence for _, sentence, _ in ENDS]


def searched() -> dict[str, Any]:
    """A plan with a regression, as it was stored while further parents were part of plans."""
    new, old, anchor = (
        makers.source(name).model_copy(update={"eval_set": name}) for name in ("batch-3", "batch-2", "anchor")
    )
    known = makers.signals(new=(new,), old=(old,), anchor=anchor)
    made = makers.plan(known, name="data-mixing", mixing={"kind": "weighted", "reweight": "regmix"})
    spec = made.model_dump(mode="json")
    spec["jobs"]["fit"]["kind"] = "regmix"
    return {**spec, "parents": {}}


def told(template: dict[str, Any] | None, **work: Any) -> dict[str, Any]:
    """What a job was told, of a template or not."""
    given = {**work, **({} if template is None else {"template": template})}
    return {"task": "causal-lm", "seed": 1, "threads": 1, "device": "auto", "model": {"path": "/"}, "work": given}


def test_a_stored_plan_can_still_be_read(old: Old) -> None:
    spec = searched()
    old.add(plans=[{"id": 1, "stream_id": "s", "decision_id": 1, "state": "open", "spec": spec}])
    old.database.upgrade()
    with old.database.read() as session:
        record = PlanRecord.model_validate(session.get_one(Plan, 1).spec)
    assert isinstance(record.jobs["fit"], FitTemplate)
    assert list(record.jobs) == list(spec["jobs"])
    assert record.model_dump(mode="json")["values"] == spec["values"]


@pytest.fixture
def worked(old: Old) -> Old:
    """Jobs of every kind, each with an attempt; the merge has made a version."""
    plan = searched()
    proxy, fit, train = (plan["jobs"][name] for name in ("proxy-1", "fit", "train"))
    drawn: dict[str, Any] = {"sources": [], "forbidden": [], "select": []}
    merged = {"kind": "merge", "method": {"kind": "soup"}, "parents": [{"role": "v1", "model": {"path": "/"}}]}
    specs = {
        "train": ("train", told(train, kind="train", sources=[], forbidden=[])),
        "proxy-1": ("fit", told(proxy, kind="proxy", **drawn)),
        "fit": ("fit", told(fit, kind="regmix", runs=[])),
        "merge": ("fit", told(None, **merged)),
        "measure": ("measure", told(None, kind="measure", sources=[], training={})),
        "evaluate": ("evaluate", told(None, kind="evaluate", sets=[], training={})),
    }
    answers = {"proxy-1": "fit", "fit": "fit"}
    jobs = [
        {
            **{**JOB, "id": at, "name": name, "kind": kind, "key": name, "spec": spec},
            "result": {"kind": answers.get(name, name), "facts": {"tokens": at}},
        }
        for at, (name, (kind, spec)) in enumerate(specs.items(), start=1)
    ]
    old.add(
        plans=[{"id": 1, "stream_id": "s", "decision_id": 1, "state": "open", "spec": plan}],
        jobs=[*jobs, {**jobs[1], "id": 7, "name": "proxy-2", "key": "p2", "state": "queued", "result": None}],
        attempts=[{**ATTEMPT, "id": at, "job_id": at} for at in range(1, 7)],
        versions=[{**VERSION, "id": 2, "number": 2, "state": "candidate", "job_id": 4}],
    )
    return old


def test_jobs_are_called_what_they_do_and_can_still_be_read(worked: Old) -> None:
    worked.database.upgrade()
    with worked.database.read() as session:
        jobs = session.scalars(select(Job).order_by(Job.id)).all()
    kinds = ["train", "proxy", "fit", "merge", "measure", "evaluate", "proxy"]
    assert [one.kind for one in jobs] == kinds
    assert [QueuedSpec.model_validate(one.spec).work.kind for one in jobs] == kinds
    results = [JobResult.model_validate(one.result) for one in jobs[:-1]]
    assert [(one.kind, one.facts) for one in results] == [
        (kind, {"tokens": at + 1}) for at, kind in enumerate(kinds[:-1])
    ]
    assert (jobs[-1].result, jobs[-1].state) == (None, "queued")


def test_what_refers_to_a_job_still_does(worked: Old) -> None:
    worked.database.upgrade()
    with worked.database.read() as session:
        pairs = select(Attempt.id, Job.id).join(Job, Job.id == Attempt.job_id).order_by(Attempt.id)
        assert [tuple(one) for one in session.execute(pairs)] == [(at, at) for at in range(1, 7)]
        assert session.scalar(select(Version.job_id).where(Version.number == 2)) == 4
    with pytest.raises(exc.IntegrityError), worked.database.writing_connection() as connection:
        connection.execute(insert(Attempt).values({**ATTEMPT, "id": 9, "job_id": 99, "started_at": now()}))
    with worked.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 7


def test_a_name_stands_for_one_job_of_a_plan(worked: Old) -> None:
    worked.database.upgrade()
    twice = {key: value for key, value in JOB.items() if key != "position"}
    another = {**twice, "kind": "train", "name": "train", "key": "another", "spec": {}, "created_at": now()}
    with pytest.raises(exc.IntegrityError), worked.database.writing_connection() as connection:
        connection.execute(insert(Job).values(another))


def test_what_a_manifest_has_stays_and_patches_may_be_laid_over_it(old: Old) -> None:
    name = "a" * 64
    entry = {"manifest_hash": name, "object_hash": name}
    old.add(
        objects=[{"hash": name, "bytes": 3}],
        manifests=[{"hash": name, "bytes": 3}],
        manifest_entries=[{**entry, "kind": "file", "path": "config.json"}, {**entry, "kind": "tensor", "path": "h"}],
    )
    old.database.upgrade()
    with old.database.write() as session:
        session.execute(insert(ManifestEntry).values(**entry, kind="patch", path="h[0:1:2]"))
        found = session.execute(select(ManifestEntry.kind, ManifestEntry.path).order_by(ManifestEntry.path)).all()
    assert [tuple(one) for one in found] == [("file", "config.json"), ("tensor", "h"), ("patch", "h[0:1:2]")]


def test_a_measure_job_that_waits_can_still_be_read(old: Old) -> None:
    spec = told(None, kind="measure", sources=[], training={}, old_in_full=16)
    apart = {"decision_id": None, "plan_id": None, "state": "queued"}
    old.add(jobs=[{**JOB, **apart, "id": 7, "kind": "measure", "name": "measure", "key": "measure:1", "spec": spec}])
    old.database.upgrade()
    with old.database.read() as session:
        found = QueuedSpec.model_validate(session.get_one(Job, 7).spec)
    assert found.work.kind == "measure"
