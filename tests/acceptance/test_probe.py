"""A probe by real jobs: it goes on after both the daemon and the job were killed, and what it found is recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from strategies.jobs.probe import STATE
from tests import models
from tests.acceptance.daemon import Daemon, write_jsonl

pytestmark = pytest.mark.slow
TRAINING = (
    *("--set", "training.max_steps=40"),
    *("--set", "training.train_batch_size=8"),
    *("--set", "training.max_length=64"),
    *("--set", "training.learning_rate=0.003"),
    *("--set", "gate.mode=record"),
)
PROBE = ("strategy.probe.budget=1.0", "strategy.probe.candidates=3")
SETTINGS = (*TRAINING, *(part for one in PROBE for part in ("--set", one)))


def test_a_killed_probe_goes_on_and_its_course_is_recorded(daemon: Daemon, tmp_path: Path) -> None:
    anchor = write_jsonl(tmp_path / "anchor.jsonl", models.texts(40))
    model = models.llama(tmp_path / "base")
    daemon.cli("stream", "add", "s", "--model", str(model), "--set", f"anchor={anchor}", *SETTINGS)
    daemon.cli("ingest", "s", str(write_jsonl(tmp_path / "batch.jsonl", models.texts(60, start=100))))
    shown = daemon.cli("retrain", "s", "--dry-run")
    assert "3 × 6 then 2 × 10 steps, 38 in all, 95% of the retrain's 40" in shown
    daemon.cli("retrain", "s")
    daemon.wait(lambda: list(daemon.home.jobs.glob(f"*/*/{STATE}")))
    daemon.kill()
    daemon.kill_jobs()
    daemon.start()
    daemon.cli("retrain", "s", "--wait")
    decision = daemon.json("decision", "show", "1")
    found: dict[str, Any] = decision["signals"]["circumstances"]["probe"]
    assert daemon.json("job", "show", str(found["job"]))["attempt"] == 2
    assert [(one["round"], one["steps"]) for one in found["trials"]] == [(0, 6)] * 3 + [(1, 10)] * 2
    assert all(one["score"] < 0 for one in found["trials"])
    finalists = {one["candidate"]: one["judged"] for one in found["trials"] if one["round"] == 1}
    assert found["chosen"] == min(finalists, key=lambda name: finalists[name])
    assert decision["measured"]["probe, round 2"].count("judged") == 2
    assert daemon.json("version", "show", "s@live")["number"] == 2


def test_the_short_run_of_a_live_trunk_starts_from_it(daemon: Daemon, tmp_path: Path) -> None:
    anchor = write_jsonl(tmp_path / "anchor.jsonl", models.texts(40))
    infinite = ("--strategy", "rewarm-replay", "--set", "strategy.schedule=infinite")
    model = str(models.llama(tmp_path / "base"))
    daemon.cli("stream", "add", "s", "--model", model, "--set", f"anchor={anchor}", *TRAINING, *infinite)
    daemon.cli("ingest", "s", str(write_jsonl(tmp_path / "1.jsonl", models.texts(60, start=100))))
    daemon.cli("retrain", "s", "--wait")
    daemon.cli("stream", "set", "s", "strategy.name=auto", "strategy.schedule=null", *PROBE)
    daemon.cli("ingest", "s", str(write_jsonl(tmp_path / "2.jsonl", models.texts(60, start=200))))
    daemon.cli("retrain", "s", "--wait")
    found: dict[str, Any] = daemon.json("decision", "show", "2")["signals"]["circumstances"]["probe"]
    work = daemon.json("job", "show", str(found["job"]))["spec"]["work"]
    starts = {one["candidate"]: one for one in work["starts"]}
    trunk, answer = starts["rewarm-replay/infinite"], starts["rewarm-replay"]
    assert trunk["model"]["path"] != answer["model"]["path"]
    assert (trunk["optimizer"] is None, answer["optimizer"] is None) == (False, True)
    tried = {one["candidate"]: one["score"] for one in found["trials"]}
    assert set(tried) >= {"rewarm-replay/infinite", "rewarm-replay"}
