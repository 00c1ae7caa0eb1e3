"""The probe between measuring and deciding: run once, recorded, and never in the way of a retrain."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from sqlalchemy import select

from orchestrator.flow import decision
from storage.tables import Decision, Job
from tests.flow.harness import NEW, Daemon
from tests.flow.toy_job import BROKEN_PROBE

PROBED = {
    "strategy": {"probe": {"budget": 1.0}},
    "training": {"max_steps": 60},
    "gate": {"repair": False},
}


def jobs(daemon: Daemon, kind: str) -> Sequence[Job]:
    with daemon.app.database.read() as session:
        return session.scalars(select(Job).where(Job.kind == kind)).all()


def test_what_the_probe_found_is_chosen_and_recorded(daemon: Daemon) -> None:
    daemon.add_stream(**PROBED)
    daemon.ingest(NEW)
    while (preview := decision.dry_run(daemon.app, "s", strategy=None)).state == "measuring":
        daemon.settle()
    assert preview.probe is not None
    assert preview.probe["tried"] == ["rewarm-replay/infinite", "rewarm-replay", "rewarm-replay/half", "naive"]
    assert preview.probe["steps"] <= 60
    assert jobs(daemon, "probe") == []
    made = daemon.retrain()
    assert made.strategy == "naive"
    assert "naive did best; the rules alone say rewarm-replay/infinite" in made.reason
    recorded = made.signals["circumstances"]["probe"]
    (job,) = jobs(daemon, "probe")
    assert (recorded["job"], job.decision_id, job.state) == (job.id, made.id, "succeeded")
    assert [one["candidate"] for one in recorded["trials"]] == preview.probe["tried"]


def test_a_probe_that_fails_leaves_the_rules_choice(daemon: Daemon) -> None:
    broken = {"budget": 1.0, "documents": BROKEN_PROBE}
    daemon.add_stream(strategy={"probe": broken}, training={"max_steps": 60}, budget={"max_attempts": 1})
    daemon.ingest(NEW)
    made = daemon.retrain()
    assert made.strategy == "rewarm-replay"
    assert made.signals["circumstances"]["probe"]["reason"].startswith("the probe failed (")
    assert daemon.versions() == {1: "retired", 2: "live"}


@pytest.mark.slow
def test_a_cancelled_probe_leaves_the_rules_choice_too(daemon: Daemon) -> None:
    daemon.add_stream(**PROBED)
    daemon.ingest(NEW)
    asked = decision.request(daemon.app, "s", strategy=None, actor="test")
    while not jobs(daemon, "probe"):
        daemon.engine.turn()
        decision.step(daemon.app)  # right after the measurement, so that the probe is queued and not yet begun
    with daemon.app.database.write() as session:
        from orchestrator.jobs import queue

        queue.cancel(session, session.get_one(Job, jobs(daemon, "probe")[0].id), actor="test", reason="enough")
    daemon.settle()
    with daemon.app.database.read() as session:
        assert session.get_one(Decision, asked.id).strategy == "rewarm-replay"


@pytest.mark.slow
def test_a_budget_that_pays_for_nothing_is_said(daemon: Daemon) -> None:
    daemon.add_stream(strategy={"probe": {"budget": 0.05}}, training={"max_steps": 60})
    daemon.ingest(NEW)
    made = daemon.retrain()
    assert "3 steps do not pay for two short runs" in made.signals["circumstances"]["probe"]["reason"]
    assert jobs(daemon, "probe") == []
