"""A candidate that only forgot is repaired before it is refused: the flow over real SQL, with a toy model."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from orchestrator.errors import GateRefused
from orchestrator.flow import decision, promotion, records, repair, rollback
from orchestrator.policies.evidence import Evidence
from orchestrator.policies.gate import judge
from orchestrator.policies.verdict import GateVerdict
from orchestrator.settings import GateSettings
from storage import lineage
from storage.tables import Event, Job, Version, VersionParent
from strategies.contract import MergeWork
from tests.flow.harness import BASE, NEW, Daemon

HOPELESS = NEW + " hopeless"


def edges(daemon: Daemon, number: int) -> dict[int, tuple[str, float]]:
    """Parent's number -> role and weight."""
    with daemon.app.database.read() as session:
        child = session.scalars(select(Version).where(Version.number == number)).one()
        found = session.scalars(select(VersionParent).where(VersionParent.child_id == child.id)).all()
        return {session.get_one(Version, one.parent_id).number: (one.role, one.weight) for one in found}


def repairs(daemon: Daemon) -> list[Job]:
    with daemon.app.database.read() as session:
        return list(session.scalars(select(Job).where(Job.name == repair.JOB)))


def reason_of(daemon: Daemon, number: int) -> str:
    """Why a version was moved last."""
    with daemon.app.database.read() as session:
        version = session.scalars(select(Version).where(Version.number == number)).one()
        moves = select(Event).where(Event.subject == "version", Event.subject_id == str(version.id))
        newest = session.scalars(moves.order_by(Event.id.desc())).first()
        assert newest is not None
        return newest.reason


def test_a_candidate_that_only_forgot_is_repaired_and_the_repaired_one_goes_live(daemon: Daemon) -> None:
    daemon.add_stream()
    batch = daemon.ingest(NEW)
    made = daemon.retrain("naive")
    assert daemon.versions() == {1: "retired", 2: "rejected", 3: "live"}
    assert edges(daemon, 3) == {1: ("merged", 0.25), 2: ("merged", 0.75)}
    assert daemon.batch_states() == {batch: "trained"}
    known = set(json.loads((daemon.live_folder() / "tokenizer_words.json").read_text()))
    assert known == {*NEW.split(), *BASE.split()}
    assert "s/3 is live" in (made.outcome or "")
    (job,) = repairs(daemon)
    assert job.decision_id == made.id
    assert f"repaired by job {job.id} (interpolate-0.25)" in reason_of(daemon, 2)


@pytest.mark.slow
def test_a_repair_looks_at_select_halves_within_half_of_the_gates_tolerance(daemon: Daemon) -> None:
    daemon.add_stream(gate={"tolerance_loss": 0.08})
    batch = daemon.ingest(NEW)
    daemon.retrain("naive")
    (job,) = repairs(daemon)
    work = records.work_of(job, MergeWork)
    sets = {one.file.name: (one.role, one.tolerance) for one in work.sets}
    assert sets == {"anchor": ("old", 0.04), f"batch-{batch}": ("new", 0.0)}
    assert (job.kind, work.base) == ("merge", "v1")


@pytest.mark.slow
def test_where_no_repair_is_found_the_candidate_is_refused_with_that_reason(daemon: Daemon) -> None:
    daemon.add_stream()
    batch = daemon.ingest(HOPELESS)
    made = daemon.retrain("naive")
    assert (made.outcome or "").startswith("refused by the gate")
    assert "none of 1 steps back" in (made.outcome or "")
    assert daemon.versions() == {1: "live", 2: "rejected"}
    assert daemon.batch_states() == {batch: "pending"}


def test_a_repair_that_fails_leaves_the_refusal_standing(daemon: Daemon) -> None:
    daemon.add_stream(budget={"max_attempts": 1})
    daemon.ingest(NEW + " broken")
    made = daemon.retrain("naive")
    (job,) = repairs(daemon)
    assert job.state == "failed"
    assert (made.outcome or "").startswith("refused by the gate")
    assert f"repair job {job.id} failed" in (made.outcome or "")
    assert daemon.versions() == {1: "live", 2: "rejected"}


def test_with_repair_off_nothing_is_tried(daemon: Daemon) -> None:
    daemon.add_stream(gate={"repair": False})
    daemon.ingest(NEW)
    daemon.retrain("naive")
    assert daemon.versions() == {1: "live", 2: "rejected"}
    assert repairs(daemon) == []


@pytest.mark.slow
def test_what_came_of_a_repair_is_not_repaired_again(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.add_stream()
    daemon.ingest(NEW)

    def strict(seen: Evidence, settings: GateSettings) -> GateVerdict:
        return judge(seen, settings).model_copy(update={"outcome": "fail", "only_forgot": True})

    monkeypatch.setattr(promotion, "judge", strict)
    made = daemon.retrain("naive")
    assert daemon.versions() == {1: "live", 2: "rejected", 3: "rejected"}
    assert len(repairs(daemon)) == 1
    assert (made.outcome or "").startswith("refused by the gate")


@pytest.mark.slow
def test_a_rollback_from_a_repaired_version_holds_its_batches(daemon: Daemon) -> None:
    daemon.add_stream()
    batch = daemon.ingest(NEW)
    daemon.retrain("naive")
    rollback.roll_back(daemon.app, "s", to=None, reason="bad", actor="test")
    assert daemon.versions() == {1: "live", 2: "rejected", 3: "retired"}
    assert daemon.batch_states() == {batch: "held"}
    with daemon.app.database.read() as session:
        third = session.scalars(select(Version).where(Version.number == 3)).one()
        assert [one.batch_id for one in lineage.batches_behind(session, third.id) if one.role == "trained"] == [batch]


def test_forcing_the_candidate_ends_its_repair(daemon: Daemon) -> None:
    daemon.add_stream()
    batch = daemon.ingest(NEW)
    decision.request(daemon.app, "s", strategy="naive", actor="test")
    while not repairs(daemon):
        daemon.engine.turn()
    with pytest.raises(GateRefused):
        promotion.promote(daemon.app, "s", 2, force=False, reason="try", actor="test")
    promotion.promote(daemon.app, "s", 2, force=True, reason="we accept it", actor="test")
    daemon.settle()
    assert daemon.versions() == {1: "retired", 2: "live"}
    assert repairs(daemon)[0].state == "cancelled"
    assert daemon.batch_states() == {batch: "trained"}
