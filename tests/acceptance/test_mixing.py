"""Data mixing by a real daemon: Skill-It over two stages, declared classes, the course in the lineage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strategies.agent.trajectories import read
from tests import models
from tests.acceptance.daemon import Daemon, write_jsonl

pytestmark = pytest.mark.slow
TRAINING = ("--set", "training.max_steps=12", "--set", "training.train_batch_size=8", "--set", "training.max_length=64")


def classes(path: Path, *, start: int) -> Path:
    rows = [
        {"text": text, "domain": "plain" if at % 2 else "loud"} for at, text in enumerate(models.texts(60, start=start))
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_skill_it_leaves_the_course_of_its_weights_in_the_lineage(daemon: Daemon, tmp_path: Path) -> None:
    model = models.llama(tmp_path / "base")
    anchor = write_jsonl(tmp_path / "anchor.jsonl", models.texts(60))
    daemon.cli(
        *("stream", "add", "s", "--model", str(model), "--set", f"anchor={anchor}", "--set", "gate.mode=record"),
        *("--strategy", "data-mixing", "--set", "strategy.mixing.domains=column", *TRAINING),
        *("--set", "strategy.mixing.reweight.eta=2"),
    )
    daemon.cli("ingest", "s", str(classes(tmp_path / "batch.jsonl", start=100)))
    daemon.cli("retrain", "s", "--wait")
    found = daemon.json("version", "show", "s@live")
    course = found["facts"]["jobs"]["train"]["mixture"]
    assert [point["step"] for point in course] == [0, 2, 4, 6, 8, 10, 12]
    assert set(course[0]["weights"]) == {"new/loud", "new/plain", "old/other"}
    assert all(set(point["losses"]) == set(point["weights"]) for point in course)
    assert len({json.dumps(point["weights"]) for point in course}) > 1, "nothing was re-weighted"
    assert {"evidence/mixture", "evidence/trajectory"} <= set(found["artifacts"])
    assert "new/loud" in daemon.cli("version", "show", "s@live")
    daemon.cli("mixing", "export", "s@live", "--out", str(tmp_path / "real.jsonl"))
    (run,) = read(tmp_path / "real.jsonl")
    assert [step.losses for step in run.steps] == [tuple(point["losses"].values()) for point in course[1:]]
    assert all(one.similarity > 0.5 for one in run.domains)
