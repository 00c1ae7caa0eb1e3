"""Register, retrain, refuse, roll back: the flow over real SQL and real processes, with a toy model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator import base_model
from orchestrator.errors import Conflict, GateRefused
from orchestrator.flow import decision, promotion, records, registration, rollback
from orchestrator.service.commands import batches
from orchestrator.service.views.transfer import show_transfer
from orchestrator.settings import StreamSettings
from storage.tables import Arrival, Batch, Event, Job, Verdict, Version, VersionArtifact, VersionBatch
from tests.flow.harness import BASE, NEW, Daemon
from tests.flow.toy_job import write_model


def test_the_base_is_live_and_measured_once_a_stream_is_registered(daemon: Daemon) -> None:
    daemon.add_stream()
    assert daemon.versions() == {1: "live"}
    assert (daemon.live_folder() / "config.json").is_file()


def test_what_is_new_is_compared_with_the_anchor(daemon: Daemon) -> None:
    daemon.add_stream(gate={"mode": "record"})
    daemon.ingest(NEW)
    daemon.retrain()
    with daemon.app.database.read() as session:
        (anchor,) = session.scalars(select(Batch.id).where(Batch.kind == "anchor"))
        spec = session.scalars(select(Job.spec).where(Job.name == "measure").order_by(Job.id.desc())).first()
    assert spec is not None
    assert spec["work"]["compared_with"] == anchor


def test_a_retrain_with_replay_learns_and_goes_live(daemon: Daemon) -> None:
    daemon.add_stream()
    batch = daemon.ingest(NEW)
    made = daemon.retrain()
    assert made.state == "closed"
    assert made.strategy == "rewarm-replay"
    assert daemon.versions() == {1: "retired", 2: "live"}
    assert daemon.batch_states() == {batch: "trained"}
    known = json.loads((daemon.live_folder() / "tokenizer_words.json").read_text())
    assert set(NEW.split()) | set(BASE.split()) == set(known)


@pytest.mark.slow
def test_siblings_that_are_merged_leave_evidence_apart_and_count_as_one_training(daemon: Daemon) -> None:
    daemon.add_stream(strategy={"name": "rewarm-replay", "consolidation": "merge"})
    daemon.ingest(NEW)
    daemon.retrain()
    with daemon.app.database.read() as session:
        made = session.scalars(select(Version).where(Version.number == 2)).one()
        rows = session.scalars(select(VersionBatch).where(VersionBatch.version_id == made.id)).all()
        roles = session.scalars(select(VersionArtifact.role).where(VersionArtifact.version_id == made.id)).all()
    assert [row.samples for row in rows] == [row.documents for row in rows]
    assert {row.role for row in rows} == {"trained", "replayed"}
    assert {role for role in roles if role.startswith("evidence/")} == {f"evidence/log/train-{at}" for at in (1, 2, 3)}


def test_a_candidate_that_forgot_is_refused_and_its_batch_stays_pending(daemon: Daemon) -> None:
    daemon.add_stream(gate={"repair": False})
    batch = daemon.ingest(NEW)
    made = daemon.retrain("naive")
    assert (made.outcome or "").startswith("refused by the gate")
    assert daemon.versions() == {1: "live", 2: "rejected"}
    assert daemon.batch_states() == {batch: "pending"}


def test_an_inconclusive_batch_is_judged_together_with_the_next(daemon: Daemon) -> None:
    daemon.add_stream()
    first = daemon.ingest(NEW, documents=5)
    made = daemon.retrain()
    assert (made.outcome or "").startswith(f"inconclusive: batch-{first}: 1 documents to judge on")
    assert (daemon.versions(), daemon.batch_states()) == ({1: "live", 2: "evaluated"}, {first: "pending"})
    second = daemon.ingest(NEW, documents=40, name="second")
    daemon.retrain()
    with daemon.app.database.read() as session:
        verdict = session.scalars(select(Verdict).order_by(Verdict.id.desc())).first()
    assert verdict is not None
    assert verdict.details["sets"][0]["members"] == [f"batch-{first}", f"batch-{second}"]
    assert daemon.batch_states() == {first: "trained", second: "trained"}
    third = daemon.ingest("a third batch brings words of its own once more", documents=40, name="third")
    made = daemon.retrain()
    assert (made.result, daemon.batch_states()[third]) == ("promoted", "trained")


def test_after_two_refusals_the_batch_is_held_and_later_batches_go_on(daemon: Daemon) -> None:
    daemon.add_stream(gate={"repair": False})
    batch = daemon.ingest(NEW)
    daemon.retrain("naive")
    second = daemon.retrain("naive")
    assert (second.outcome or "").startswith("refused by the gate")
    assert daemon.batch_states() == {batch: "held"}
    later = daemon.ingest("another set of words altogether comes along today", name="later")
    daemon.retrain()
    assert daemon.batch_states() == {batch: "held", later: "trained"}


def test_the_same_decision_is_not_made_twice(daemon: Daemon) -> None:
    daemon.add_stream()
    daemon.ingest(NEW)
    first = decision.request(daemon.app, "s", strategy=None, actor="test")
    again = decision.request(daemon.app, "s", strategy="naive", actor="test")
    assert first.id == again.id


def test_rollback_returns_to_the_earlier_version_and_holds_what_only_the_later_saw(daemon: Daemon) -> None:
    daemon.add_stream()
    first = daemon.ingest(NEW)
    daemon.retrain()
    second = daemon.ingest("a second batch has got its own strange vocabulary again", name="second")
    daemon.retrain()
    learned = show_transfer(daemon.app, "s")
    assert learned.stages == [2, 3]
    assert learned.backward_transfer == pytest.approx(0.0)
    rollback.roll_back(daemon.app, "s", to=None, reason="worse in production", actor="test")
    assert daemon.versions() == {1: "retired", 2: "live", 3: "retired"}
    assert daemon.batch_states() == {first: "trained", second: "held"}
    assert daemon.live_folder().name == "v2"
    rollback.roll_back(daemon.app, "s", to=None, reason="further back", actor="test")
    assert daemon.versions() == {1: "live", 2: "retired", 3: "retired"}
    with pytest.raises(Conflict, match="no earlier version"):
        rollback.roll_back(daemon.app, "s", to=None, reason="too far", actor="test")


def test_rollback_to_a_number_and_forward_again(daemon: Daemon) -> None:
    daemon.add_stream()
    daemon.ingest(NEW)
    daemon.retrain()
    rollback.roll_back(daemon.app, "s", to=1, reason="back", actor="test")
    rollback.roll_back(daemon.app, "s", to=2, reason="it was fine", actor="test")
    assert daemon.versions() == {1: "retired", 2: "live"}
    with pytest.raises(Conflict, match="was never live"):
        rollback.roll_back(daemon.app, "s", to=7, reason="no such", actor="test")


def test_only_force_makes_a_refused_version_live(daemon: Daemon) -> None:
    daemon.add_stream(gate={"repair": False})
    daemon.ingest(NEW)
    daemon.retrain("naive")
    with pytest.raises(GateRefused):
        promotion.promote(daemon.app, "s", 2, force=False, reason="try", actor="test")
    promotion.promote(daemon.app, "s", 2, force=True, reason="we accept it", actor="test")
    assert daemon.versions() == {1: "retired", 2: "live"}
    assert daemon.promotions()[-1][1] == "forced"


def test_in_record_mode_the_verdict_is_stored_and_the_candidate_goes_live(daemon: Daemon) -> None:
    daemon.add_stream(gate={"mode": "record"})
    daemon.ingest(NEW)
    daemon.retrain("naive")
    assert daemon.versions() == {1: "retired", 2: "live"}
    assert daemon.promotions()[-1][1] == "recorded"


@pytest.mark.slow
def test_a_rollback_ends_the_decision_under_way_as_stale(daemon: Daemon) -> None:
    daemon.add_stream()
    daemon.ingest(NEW)
    daemon.retrain()
    daemon.ingest("words that will never be trained on by anyone", name="second")
    open_one = decision.request(daemon.app, "s", strategy=None, actor="test")
    rollback.roll_back(daemon.app, "s", to=None, reason="stop", actor="test")
    daemon.settle()
    with daemon.app.database.read() as session:
        ended = session.get_one(type(open_one), open_one.id)
    assert ended.result == "stale"
    assert (ended.outcome or "").startswith("stale")
    assert daemon.versions() == {1: "live", 2: "retired"}


def test_a_dry_run_says_why_the_live_version_cannot_be_scored(daemon: Daemon) -> None:
    daemon.add_stream(resources={"gpus": 3})
    daemon.ingest(NEW)
    daemon.settle()
    with pytest.raises(Conflict, match=r"asks for 3 GPUs .* `rekindle job retry"):
        decision.dry_run(daemon.app, "s", strategy=None)


def test_a_dry_run_shows_the_decision_and_leaves_no_trace(daemon: Daemon) -> None:
    daemon.add_stream()
    daemon.ingest(NEW)
    shown = decision.dry_run(daemon.app, "s", strategy=None)
    assert shown.state == "measuring"
    while shown.state == "measuring":
        daemon.settle()
        shown = decision.dry_run(daemon.app, "s", strategy=None)
    assert (shown.state, shown.strategy) == ("decided", "rewarm-replay")
    assert shown.values["replay"]["value"] == 0.25
    assert daemon.versions() == {1: "live"}


def test_without_an_anchor_documents_sampled_from_the_base_stand_in(daemon: Daemon) -> None:
    daemon.add_stream(anchor=None)
    with daemon.app.database.read() as session:
        anchor = session.scalars(select(Batch).where(Batch.kind == "anchor")).one()
    assert anchor.synthetic


def test_samples_that_cannot_stand_in_are_not_tried_again_and_end_the_decision(daemon: Daemon) -> None:
    daemon.add_stream(anchor=None, limits={"max_rows": 3})
    daemon.ingest(NEW, documents=3)
    made = daemon.retrain()
    assert (made.result, "cannot stand in" in (made.outcome or "")) == ("failed", True)
    with pytest.raises(Conflict, match="register a stream with one"):
        decision.dry_run(daemon.app, "s", strategy=None)
    with daemon.app.database.read() as session:
        arrivals = session.scalars(select(Arrival.outcome).where(Arrival.name.startswith("samples of job"))).all()
        alerts = session.scalars(select(Event.reason).where(Event.action == "alert")).all()
    assert arrivals == ["refused"]
    assert any("cannot stand in for an anchor" in (one or "") for one in alerts)


@pytest.mark.slow
def test_released_batches_are_trained_again_after_a_rollback(daemon: Daemon) -> None:
    daemon.add_stream()
    batch = daemon.ingest(NEW)
    daemon.retrain()
    rollback.roll_back(daemon.app, "s", to=None, reason="too early", actor="test")
    assert daemon.batch_states() == {batch: "held"}
    batches.release(daemon.app, batch, actor="test")
    daemon.retrain()
    assert daemon.versions() == {1: "retired", 2: "retired", 3: "live"}


@pytest.mark.slow
def test_the_batches_behind_a_forced_version_are_trained(daemon: Daemon) -> None:
    daemon.add_stream(gate={"repair": False})
    batch = daemon.ingest(NEW)
    daemon.retrain("naive")
    promotion.promote(daemon.app, "s", 2, force=True, reason="we accept it", actor="test")
    assert daemon.batch_states() == {batch: "trained"}


def test_a_rebased_root_is_gated_and_the_settings_follow_it(daemon: Daemon) -> None:
    daemon.add_stream()
    better = daemon.root / "better"
    write_model(better, {*BASE.split(), *NEW.split()})
    made = registration.rebase(daemon.app, "s", model=str(better), revision=None, actor="test")
    daemon.settle()
    assert daemon.versions() == {1: "retired", made.number: "live"}
    assert settings_now(daemon).model == str(better)
    rollback.roll_back(daemon.app, "s", to=1, reason="back to the old base", actor="test")
    assert settings_now(daemon).model == str(daemon.root / "base")


def test_another_revision_of_the_same_base_is_followed_too(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    bring = base_model.bring

    def brought(settings: StreamSettings, *, store: Path, cache: Path) -> tuple[str, dict[str, Any]]:
        manifest, facts = bring(settings.model_copy(update={"revision": None}), store=store, cache=cache)
        return manifest, {**facts, "revision": settings.revision}

    daemon.add_stream()
    before = settings_now(daemon)
    write_model(Path(before.model), {*BASE.split(), *NEW.split()})
    monkeypatch.setattr(base_model, "bring", brought)
    registration.rebase(daemon.app, "s", model=before.model, revision="v2", actor="test")
    daemon.settle()
    assert settings_now(daemon).revision == "v2"
    rollback.roll_back(daemon.app, "s", to=1, reason="back to the old revision", actor="test")
    assert settings_now(daemon).revision is None


def test_a_batch_that_is_held_ends_the_decision_about_it(daemon: Daemon) -> None:
    daemon.add_stream()
    batch = daemon.ingest(NEW)
    made = decision.request(daemon.app, "s", strategy=None, actor="test")
    batches.hold(daemon.app, batch, reason="bad", actor="test")
    daemon.settle()
    with daemon.app.database.read() as session:
        assert (session.get_one(type(made), made.id).outcome or "").startswith("stale: batch")


def settings_now(daemon: Daemon) -> StreamSettings:
    with daemon.app.database.read() as session:
        return records.settings_of(session, records.stream_by_name(session, "s").id)
