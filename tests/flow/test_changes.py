"""Settings that change while a stream lives: what comes back, what goes, and who was first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, select

from orchestrator.errors import Conflict, GateRefused
from orchestrator.flow import decision, promotion, records, registration, rollback
from orchestrator.policies.evidence import Evidence
from orchestrator.policies.gate import judge
from orchestrator.policies.verdict import GateVerdict
from orchestrator.service.commands.batches import hold
from orchestrator.service.commands.streams import pause, resume, set_stream
from orchestrator.settings import GateSettings
from storage.tables import Batch, EvalSet, Evaluation, Stream
from tests.flow.harness import BASE, NEW, Daemon, write_documents


def change(daemon: Daemon, **changes: Any) -> None:
    dotted = {name.replace("__", "."): value for name, value in changes.items()}
    set_stream(daemon.app, "s", dotted, {}, actor="test", dry_run=False)
    daemon.settle()


def active(daemon: Daemon, name: str) -> list[int]:
    """How many documents the active eval sets of a name have."""
    with daemon.app.database.read() as session:
        found = session.scalars(select(EvalSet).where(EvalSet.name == name, EvalSet.active))
        return [one.documents for one in found]


def test_an_eval_set_that_comes_back_is_measured_on_whatever_file_it_is_now(daemon: Daemon) -> None:
    first = write_documents(daemon.root / "first.jsonl", BASE, 7)
    other = write_documents(daemon.root / "other.jsonl", f"{BASE} besides", 9)
    daemon.add_stream(evaluations={"safety": str(first)})
    assert active(daemon, "safety") == [7]
    change(daemon, evaluations={})
    assert active(daemon, "safety") == []
    for file, documents in ((other, 9), (None, 0), (first, 7)):
        change(daemon, evaluations={} if file is None else {"safety": str(file)})
        assert active(daemon, "safety") == ([documents] if documents else [])
    with daemon.app.database.read() as session:
        sets = session.scalars(select(EvalSet.content_hash).where(EvalSet.name == "safety")).all()
        assert {*sets} <= {*session.scalars(select(Evaluation.eval_set_hash))}


def test_of_two_changes_of_the_same_settings_the_later_is_told(daemon: Daemon) -> None:
    daemon.add_stream()
    with daemon.app.database.read() as session:
        stream = records.stream_by_name(session, "s")
        settings, since = records.settings_of(session, stream.id), records.revision_of(session, stream.id).id
    change(daemon, gate__new_data_margin=0.02)
    with pytest.raises(Conflict, match="changed meanwhile; set yours again"):
        registration.change_stream(daemon.app, "s", settings, since=since, origins={}, actor="test")
    with daemon.app.database.read() as session:
        assert records.settings_of(session, stream.id).gate.new_data_margin == 0.02


def test_only_a_paused_stream_is_resumed_and_only_an_active_one_paused(daemon: Daemon) -> None:
    daemon.add_stream()
    with pytest.raises(Conflict, match="is active, not paused"):
        resume(daemon.app, "s", actor="test")
    pause(daemon.app, "s", actor="test")
    with pytest.raises(Conflict, match="is paused, not active"):
        pause(daemon.app, "s", actor="test")
    resume(daemon.app, "s", actor="test")
    with daemon.app.database.write() as session:
        session.scalars(select(Stream)).one().state = "failed"
    with pytest.raises(Conflict, match="is failed, not paused"):
        resume(daemon.app, "s", actor="test")


def test_a_stream_that_publishes_no_more_has_no_link_and_is_rolled_back_all_the_same(daemon: Daemon) -> None:
    daemon.add_stream()
    daemon.ingest(NEW)
    daemon.retrain()
    folder = daemon.app.home.published / "s"
    change(daemon, publish__enabled=False)
    assert not (folder / "live").is_symlink()
    rollback.roll_back(daemon.app, "s", to=None, reason="worse in production", actor="test")
    daemon.settle()
    assert (daemon.versions(), (folder / "live").is_symlink()) == ({1: "live", 2: "retired"}, False)
    change(daemon, publish__enabled=True)
    assert (folder / "live").resolve().name == "v1"


def test_the_link_moves_with_the_directory(daemon: Daemon, tmp_path: Path) -> None:
    daemon.add_stream()
    former = daemon.app.home.published / "s" / "live"
    assert former.is_symlink()
    change(daemon, publish__directory=str(tmp_path / "elsewhere"))
    assert not former.is_symlink()
    assert (tmp_path / "elsewhere" / "live").resolve().name == "v1"


def test_a_candidate_is_judged_anew_once_the_gate_has_other_settings(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strict(seen: Evidence, settings: GateSettings) -> GateVerdict:
        said = judge(seen, settings)
        return said if settings.new_data_margin > 0.02 else said.model_copy(update={"outcome": "inconclusive"})

    monkeypatch.setattr(promotion, "judge", strict)
    daemon.add_stream()
    daemon.ingest(NEW)
    assert daemon.retrain().result == "inconclusive"
    with pytest.raises(GateRefused):
        promotion.promote(daemon.app, "s", 2, force=False, reason="try", actor="test")
    with pytest.raises(Conflict, match="already tried"):
        daemon.retrain()
    change(daemon, gate__new_data_margin=0.05)
    promotion.promote(daemon.app, "s", 2, force=False, reason="try again", actor="test")
    assert daemon.versions() == {1: "retired", 2: "live"}


def test_a_decision_does_not_wait_for_scores_on_batches_that_are_held(daemon: Daemon) -> None:
    daemon.add_stream()
    held = daemon.ingest("words of a batch that is put aside for good", name="aside")
    daemon.settle()
    hold(daemon.app, held, reason="bad", actor="test")
    with daemon.app.database.write() as session:
        (unscored,) = session.scalars(select(EvalSet.content_hash).where(EvalSet.name == f"batch-{held}"))
        session.execute(delete(Evaluation).where(Evaluation.eval_set_hash == unscored))
    with daemon.app.database.read() as session:
        stream = session.scalars(select(Stream)).one()
        batch = session.get_one(Batch, held)
        assert decision.base_ready(session, stream, [])
        assert not decision.base_ready(session, stream, [batch])
