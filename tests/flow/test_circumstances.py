"""Signals of a stream's own past, gathered from real records."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import Conflict
from orchestrator.flow import evaluation, promotion, rollback
from orchestrator.flow.forgetting import forgotten
from orchestrator.policies.evidence import Evidence
from orchestrator.policies.gate import judge
from orchestrator.policies.verdict import GateVerdict
from orchestrator.settings import GateSettings, StreamSettings
from storage.database import Database
from storage.tables import Decision
from strategies.contract.circumstances import Circumstances
from tests.flow.harness import NEW, Daemon, write_documents
from tests.storage import rows


def circumstances(made: Decision) -> Circumstances:
    return Circumstances.model_validate(made.signals["circumstances"])


def test_the_past_of_a_stream_is_measured_before_each_choice(daemon: Daemon) -> None:
    daemon.add_stream(gate={"mode": "record"}, resources={"cpus": 2})
    daemon.ingest(NEW)
    first = circumstances(daemon.retrain("naive"))
    assert (first.forgotten, first.decisions, first.duplicate_share) == ((), (), 0.0)
    assert first.hardware is not None
    assert (first.hardware.cores, first.hardware.job_cores, first.hardware.gpus) == (4, 2, 0)
    path = write_documents(daemon.root / "second.jsonl", f"{NEW} again", 30)
    copied = (daemon.root / "batch.jsonl").read_text().splitlines()[:10]
    path.write_text(path.read_text() + "\n".join(copied))
    ingest_file(daemon, path)
    second = circumstances(daemon.retrain())
    assert (second.arrived, second.duplicates) == (40, 10)
    assert second.duplicate_share == 0.25
    assert [(one.strategy, one.result) for one in second.decisions] == [("naive", "promoted")]
    anchor = next(one for one in second.forgotten if one.eval_set == "anchor")
    assert (anchor.best, anchor.now, anchor.rise) == (1.0, 5.0, 4.0)


def test_a_refused_decision_is_remembered(daemon: Daemon) -> None:
    daemon.add_stream(gate={"repair": False})
    daemon.ingest(NEW)
    daemon.retrain("naive")
    (refused,) = circumstances(daemon.retrain()).decisions
    assert (refused.strategy, refused.result, refused.only_forgot) == ("naive", "refused", True)


def test_a_decision_whose_sentence_is_reworded_still_counts(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.add_stream(gate={"repair": False})
    daemon.ingest(NEW)
    reword(daemon, daemon.retrain("naive"))

    def unsure(seen: Evidence, settings: GateSettings) -> GateVerdict:
        return judge(seen, settings).model_copy(update={"outcome": "inconclusive"})

    monkeypatch.setattr(promotion, "judge", unsure)
    second = daemon.retrain()
    assert results(second) == ["refused"]
    assert [one["strategy"] for one in second.signals["refused"]] == ["naive"]
    reword(daemon, second)
    with pytest.raises(Conflict, match=f"decision {second.id} already tried these batches"):
        daemon.retrain()
    assert results(daemon.retrain("naive")) == ["refused", "inconclusive"]


@pytest.mark.slow
def test_a_refusal_for_what_was_not_learnt_is_no_forgetting(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.add_stream(gate={"repair": False})
    daemon.ingest(NEW)

    def not_better(seen: Evidence, settings: GateSettings) -> GateVerdict:
        return judge(seen, settings).model_copy(update={"outcome": "fail", "only_forgot": False})

    monkeypatch.setattr(promotion, "judge", not_better)
    daemon.retrain("naive")
    (refused,) = circumstances(daemon.retrain()).decisions
    assert (refused.result, refused.only_forgot) == ("refused", False)


@pytest.mark.slow
def test_a_decision_whose_version_was_rolled_back_is_remembered_as_such(daemon: Daemon) -> None:
    daemon.add_stream(gate={"mode": "record"})
    daemon.ingest(NEW)
    daemon.retrain("naive")
    rollback.roll_back(daemon.app, "s", to=None, reason="bad", actor="test")
    daemon.ingest(f"{NEW} again", name="second")
    second = daemon.retrain("naive")
    assert [(one.result, one.reason) for one in circumstances(second).decisions] == [("rolled back", "bad")]
    rollback.roll_back(daemon.app, "s", to=2, reason="better after all", actor="test")
    daemon.ingest(f"{NEW} once more", name="third")
    assert results(daemon.retrain()) == ["promoted", "rolled back"]


@pytest.mark.slow
def test_a_version_that_a_repair_saved_is_remembered_as_repaired(daemon: Daemon) -> None:
    daemon.add_stream()
    daemon.ingest(NEW)
    daemon.retrain("naive")
    daemon.ingest(f"{NEW} again", name="second")
    second = daemon.retrain("naive")
    assert results(second) == ["repaired"]
    rollback.roll_back(daemon.app, "s", to=1, reason="bad", actor="test")
    daemon.ingest(f"{NEW} once more", name="third")
    assert results(daemon.retrain("naive"))[0] == "rolled back"


def test_a_version_that_knows_none_of_a_sets_classes_forgot_none_of_them(database: Database) -> None:
    settings = StreamSettings.model_validate({"name": "s", "model": "m", "task": "classification"})
    hashed = evaluation.settings_hash(settings)
    with database.write() as session:
        rows.add_stream(session)
        line = [
            rows.add_version(session, number, facts={"labels": labels})
            for number, labels in enumerate([["red"], ["red", "blue"], ["red", "blue"]], start=1)
        ]
        sets = [rows.add_eval_set(session, name, labels=[name]) for name in ("red", "blue")]
        for one in sets:
            for version, value in zip(line, (0.0, 0.5, 0.75), strict=True):
                rows.add_evaluation(
                    session, version, eval_set=one, settings_hash=hashed, metric="accuracy", value_select=value
                )
        found = {one.eval_set: one for one in forgotten(session, line, sets, settings)}
        assert (found["red"].versions, found["red"].rise) == (3, -0.25)
        assert (found["blue"].versions, found["blue"].rise) == (2, -0.25)
        early = {one.eval_set: one for one in forgotten(session, line[:2], sets, settings)}
        assert set(early) == {"red"}


def reword(daemon: Daemon, made: Decision) -> None:
    with daemon.app.database.write() as session:
        session.get_one(Decision, made.id).outcome = "said in other words"


def results(made: Decision) -> list[str]:
    return [one.result for one in circumstances(made).decisions]


def ingest_file(daemon: Daemon, path: Path) -> None:
    from orchestrator.flow import records
    from orchestrator.ingest.arrival import ingest

    with daemon.app.database.read() as session:
        stream = records.stream_by_name(session, "s")
    report = ingest(daemon.app, stream.id, path=path, name="second", actor="test")
    assert report.outcome == "accepted", report.reason
