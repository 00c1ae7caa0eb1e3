"""Data mixing by a real daemon: Skill-It on declared classes and on a trunk, its course, a stage from the base."""

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


def test_a_trunk_is_re_weighted_and_its_release_keeps_the_last_weights_stage_after_stage(
    daemon: Daemon, tmp_path: Path
) -> None:
    anchor = write_jsonl(tmp_path / "anchor.jsonl", models.texts(60))
    daemon.cli(
        *("stream", "add", "s", "--model", str(models.llama(tmp_path / "base")), "--set", f"anchor={anchor}"),
        *("--set", "gate.mode=record", "--strategy", "data-mixing", "--set", "strategy.schedule=infinite", *TRAINING),
        *("--set", "strategy.mixing.reweight.eta=2"),
    )
    for stage in (1, 2):
        batch = write_jsonl(tmp_path / f"{stage}.jsonl", models.texts(60, start=100 * stage))
        daemon.cli("ingest", "s", str(batch))
        daemon.cli("retrain", "s", "--wait")
        jobs = daemon.json("version", "show", "s@live")["facts"]["jobs"]
        trunk, release = jobs["trunk"]["mixture"], jobs["release"]["mixture"]
        assert len({json.dumps(point["weights"]) for point in trunk}) > 1, "nothing was re-weighted"
        last = {name: float(weight) for name, weight in trunk[-1]["weights"].items()}
        (kept,) = release
        assert {name: float(weight) for name, weight in kept["weights"].items()} == pytest.approx(last, abs=1e-5)
    assert set(last) == {"anchor", "batch-2", "batch-3"}
    daemon.cli("mixing", "export", "s@live", "--out", str(tmp_path / "real.jsonl"))
    (run,) = read(tmp_path / "real.jsonl")
    assert [step.losses for step in run.steps] == [tuple(point["losses"].values()) for point in trunk[1:]]


def test_a_stage_from_the_base_is_taught_all_domains_by_their_tokens(daemon: Daemon, tmp_path: Path) -> None:
    anchor = write_jsonl(tmp_path / "anchor.jsonl", models.texts(60))
    daemon.cli(
        *("stream", "add", "s", "--model", str(models.llama(tmp_path / "base")), "--set", f"anchor={anchor}"),
        *("--set", "gate.mode=record", "--strategy", "retrain", *TRAINING),
        *("--set", "strategy.mixing.kind=weighted", "--set", "strategy.mixing.weights=prior"),
    )
    for stage in (1, 2):
        batch = write_jsonl(tmp_path / f"{stage}.jsonl", models.texts(60, start=100 * stage))
        daemon.cli("ingest", "s", str(batch))
        daemon.cli("retrain", "s", "--wait")
    train = daemon.json("version", "show", "s@live")["facts"]["jobs"]["train"]
    tokens = {name: one["tokens"] for name, one in train["sources"].items()}
    assert set(tokens) == {"anchor", "batch-2", "batch-3"}
    weights = {name: float(weight) for name, weight in train["mixture"][0]["weights"].items()}
    assert weights == pytest.approx({name: count / sum(tokens.values()) for name, count in tokens.items()}, rel=0.05)
