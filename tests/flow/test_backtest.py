"""A recorded stream under another policy: same batches, same sets, another lineage, nothing of the stream changes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator.errors import BadInput, Conflict, NotFound
from orchestrator.flow.backtest import HELD_S, scratch_settings
from orchestrator.service.backtest_records import BacktestRecord
from orchestrator.service.commands.backtests import backtest
from orchestrator.service.commands.streams import remove, set_stream
from orchestrator.service.views import backtest as views
from orchestrator.settings import LAST, ResourceSettings, StreamSettings
from storage import chain
from storage.tables import Batch, Job, Plan, Promotion, Stream, Version
from tests.flow.harness import NEW, Daemon, daemon_at

NAIVE = {"strategy.name": "naive"}
OTHER = "yet another subject brings different rare expressions into this corpus"


@pytest.fixture(scope="module")
def recorded(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A stream that learned two batches with replay and remembers all of it; no backtest may change that."""
    root = tmp_path_factory.mktemp("recorded")
    shutil.copy(sqlite_template, root / "rekindle.db")
    with daemon_at(root) as daemon:
        daemon.add_stream(strategy="rewarm-replay")
        for name, text in (("first", NEW), ("second", OTHER)):
            daemon.ingest(text, name=name)
            daemon.retrain()
        assert daemon.versions() == {1: "retired", 2: "retired", 3: "live"}
        yield daemon


def replay(daemon: Daemon, changes: dict[str, Any], until: int | None = None) -> BacktestRecord:
    """Ask until it is done."""
    while (found := backtest(daemon.app, "s", changes, until=until, actor="test")).state != "done":
        daemon.settle()
    return found


def of_stream(daemon: Daemon, name: str) -> tuple[dict[int, str], dict[int, str]]:
    with daemon.app.database.read() as session:
        stream = session.scalars(select(Stream).where(Stream.name == name)).one()
        versions = session.scalars(select(Version).where(Version.stream_id == stream.id)).all()
        batches = session.scalars(select(Batch).where(Batch.stream_id == stream.id, Batch.kind == "data")).all()
        assert chain.verify(session) == []
        return {one.number: one.state for one in versions}, {one.id: one.state for one in batches}


def jobs_planned(daemon: Daemon, name: str) -> list[dict[str, Any]]:
    with daemon.app.database.read() as session:
        stream = session.scalars(select(Stream).where(Stream.name == name)).one()
        plans = session.scalars(select(Plan).where(Plan.stream_id == stream.id).order_by(Plan.id))
        return [one.spec["jobs"] for one in plans]


def test_both_policies_stand_side_by_side(recorded: Daemon) -> None:
    found = replay(recorded, {**NAIVE, "gate.mode": "record"})
    assert found.recorded is not None
    assert found.replayed is not None
    assert [len(group) for group in found.batches] == [1, 1]
    assert (found.recorded.version, found.recorded.promoted) == (3, 2)
    assert (found.replayed.promoted, found.replayed.strategies) == (2, {"naive": 2})
    sets = {one.eval_set: one for one in found.sets}
    assert (sets["anchor"].recorded, sets["anchor"].replayed, sets["anchor"].change) == (1.0, 5.0, 4.0)
    assert (sets["anchor"].recorded_forgetting, sets["anchor"].replayed_forgetting) == (0.0, 4.0)
    assert found.recorded.forgetting == 0.0
    assert (found.replayed.forgetting or 0.0) > 1.0


def test_a_policy_pays_for_its_searches_and_probes_too() -> None:
    result = {"kind": "probe", "facts": {"tokens": 7, "probe": {"trials": [{"tokens": 3}, {"tokens": 2}]}}}
    began = datetime(2026, 1, 1, tzinfo=UTC)
    job = Job(kind="probe", result=result, started_at=began, finished_at=began + timedelta(seconds=9))
    assert (views._tokens(job), views._seconds(job)) == (12, 9.0)
    merge = Job(kind="merge", result={"kind": "merge"})
    assert (views._tokens(merge), views._seconds(merge)) == (0, 0.0)


@pytest.mark.slow
def test_a_decision_that_failed_before_it_made_a_version_is_counted(daemon: Daemon) -> None:
    daemon.add_stream(strategy="rewarm-replay")
    daemon.ingest(NEW)
    failed = daemon.retrain("half-finetune")
    assert "parameters were not measured" in (failed.outcome or "")
    daemon.retrain()
    found = replay(daemon, {})
    assert found.recorded is not None
    assert (found.recorded.promoted, found.recorded.failed) == (1, 1)


def test_a_policy_that_the_gate_refuses_is_counted(recorded: Daemon) -> None:
    found = replay(recorded, {**NAIVE, "gate.repair": False})
    assert found.replayed is not None
    assert (found.replayed.version, found.replayed.promoted, found.replayed.refused) == (1, 0, 2)
    assert all(one.outcome.startswith("refused by the gate") for one in found.replayed.ends)


def test_the_recorded_stream_stays_as_it_is(recorded: Daemon) -> None:
    before, folder = of_stream(recorded, "s"), recorded.live_folder()
    with recorded.app.database.read() as session:
        stream = session.scalars(select(Stream).where(Stream.name == "s")).one()
        promotions = select(Promotion.id).where(Promotion.stream_id == stream.id)
        made = list(session.scalars(promotions))
    found = replay(recorded, {**NAIVE, "gate.mode": "record"})
    with recorded.app.database.read() as session:
        assert list(session.scalars(promotions)) == made
    assert of_stream(recorded, "s") == before
    assert recorded.live_folder() == folder
    assert [one.name for one in recorded.app.home.published.iterdir()] == ["s"]
    assert of_stream(recorded, found.scratch)[0] == {1: "retired", 2: "retired", 3: "live"}


def test_a_replay_may_end_at_a_batch(recorded: Daemon) -> None:
    first = min(of_stream(recorded, "s")[1])
    found = replay(recorded, {}, until=first)
    assert found.recorded is not None
    assert (found.batches, found.recorded.version) == (((first,),), 2)
    assert {one.eval_set for one in found.sets} == {"anchor", f"batch-{first}"}
    assert all(one.change == 0.0 for one in found.sets)


def test_the_recorded_policy_plans_the_very_same_jobs(recorded: Daemon) -> None:
    found = replay(recorded, {})
    plans = {name: jobs_planned(recorded, name) for name in ("s", found.scratch)}
    assert plans["s"] == plans[found.scratch]
    assert "batch-" in str(plans["s"])
    assert [one.change for one in found.sets] == [0.0] * 3


@pytest.mark.slow
def test_the_same_question_goes_on_where_it_was(recorded: Daemon) -> None:
    smaller = {"strategy.name": "half-finetune", "strategy.selection": "all"}
    first = backtest(recorded.app, "s", smaller, until=None, actor="test")
    again = backtest(recorded.app, "s", smaller, until=None, actor="test")
    assert (again.scratch, again.decision, again.done) == (first.scratch, first.decision, 0)
    done = replay(recorded, smaller)
    assert (done.scratch, done.done, done.decision) == (first.scratch, 2, None)


def test_a_replay_is_of_the_past_as_it_was_when_it_began(daemon: Daemon) -> None:
    daemon.add_stream(strategy="rewarm-replay")
    daemon.ingest(NEW, name="first")
    daemon.retrain()
    first = backtest(daemon.app, "s", NAIVE, until=None, actor="test")
    daemon.ingest(OTHER, name="second")
    daemon.retrain()
    set_stream(daemon.app, "s", {"retention.evaluated_batches": 3}, {}, dry_run=False, actor="test")
    found = first
    while found.state != "done":
        found = backtest(daemon.app, "s", NAIVE, until=None, actor="test", scratch=first.scratch)
        daemon.settle()
    assert (found.scratch, found.batches) == (first.scratch, first.batches)
    assert backtest(daemon.app, "s", NAIVE, until=None, actor="test").scratch != first.scratch
    with pytest.raises(NotFound, match="has no replay s"):
        backtest(daemon.app, "s", NAIVE, until=None, actor="test", scratch="s")


def test_a_replay_that_cannot_run_says_why(recorded: Daemon) -> None:
    found = replay(recorded, {"resources.gpus": 3})
    assert found.replayed is not None
    assert (found.replayed.failed, [one.result for one in found.replayed.ends]) == (2, ["nothing", "nothing"])
    why = [one.outcome for one in found.replayed.ends] + [found.replayed.unscored or ""]
    assert all("asks for 3 GPUs" in one for one in why)
    assert found.recorded is not None
    assert (found.recorded.ends, found.recorded.unscored) == ((), None)


def test_one_caller_at_a_time_takes_a_replay_further(recorded: Daemon) -> None:
    def ask(caller: str) -> BacktestRecord:
        return backtest(recorded.app, "s", {"strategy.name": "retrain"}, until=None, actor="test", caller=caller)

    first = ask("one")
    with pytest.raises(Conflict, match=f"another `rekindle stream backtest` is at {first.scratch}"):
        ask("two")
    assert ask("one").scratch == first.scratch
    recorded.clock.offset += timedelta(seconds=HELD_S)
    assert ask("two").scratch == first.scratch
    with pytest.raises(Conflict, match="another"):
        ask("one")
    remove(recorded.app, first.scratch, purge=True, actor="test")


@pytest.mark.parametrize(
    ("changes", "until", "error", "said"),
    [
        ({"anchor": None}, None, BadInput, "anchor cannot differ in a backtest"),
        ({"training.max_length": 64}, None, BadInput, "scores would not compare"),
        ({"strategy.name": "magic"}, None, BadInput, "magic"),
        ({"strategy.start": "base"}, None, BadInput, "strategy: from the base"),
        ({}, 999, NotFound, "no data batch 999"),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    recorded: Daemon, changes: dict[str, Any], until: int | None, error: type[Exception], said: str
) -> None:
    with recorded.app.database.read() as session:
        before = session.scalars(select(Stream.name)).all()
    with pytest.raises(error, match=said):
        backtest(recorded.app, "s", changes, until=until, actor="test")
    with recorded.app.database.read() as session:
        assert session.scalars(select(Stream.name)).all() == before


def test_a_replay_of_the_last_stream_in_line_has_valid_settings() -> None:
    last = StreamSettings(name="s", model="m", resources=ResourceSettings(priority=LAST))
    scratch = scratch_settings(last, last)
    assert StreamSettings.model_validate(scratch.model_dump()).resources.priority == LAST


def test_a_stream_without_a_retrain_has_nothing_to_replay(daemon: Daemon) -> None:
    daemon.add_stream(anchor=None, task="classification")
    with pytest.raises(Conflict, match="never retrained"):
        backtest(daemon.app, "s", NAIVE, until=None, actor="test")
