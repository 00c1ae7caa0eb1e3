"""Data mixing by a real daemon: Skill-It on declared classes and on a trunk, a stage from the base, an agent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from strategies.agent.trajectories import read
from tests import agents, models
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


def stages(daemon: Daemon, folder: Path, *settings: str) -> Iterator[dict[str, Any]]:
    """The facts of the jobs of each of two stages of a stream with an anchor."""
    anchor = write_jsonl(folder / "anchor.jsonl", models.texts(60))
    daemon.cli(
        *("stream", "add", "s", "--model", str(models.llama(folder / "base")), "--set", f"anchor={anchor}"),
        *("--set", "gate.mode=record", *TRAINING, *settings),
    )
    for stage in (1, 2):
        batch = write_jsonl(folder / f"{stage}.jsonl", models.texts(60, start=100 * stage))
        daemon.cli("ingest", "s", str(batch))
        daemon.cli("retrain", "s", "--wait")
        yield daemon.json("version", "show", "s@live")["facts"]["jobs"]


def test_a_trunk_is_re_weighted_and_its_release_keeps_the_last_weights_stage_after_stage(
    daemon: Daemon, tmp_path: Path
) -> None:
    infinite = ("--strategy", "data-mixing", "--set", "strategy.schedule=infinite")
    for jobs in stages(daemon, tmp_path, *infinite, "--set", "strategy.mixing.reweight.eta=2"):
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
    weighted = ("--set", "strategy.mixing.kind=weighted", "--set", "strategy.mixing.weights=prior")
    *_, jobs = stages(daemon, tmp_path, "--strategy", "retrain", *weighted)
    train = jobs["train"]
    tokens = {name: one["tokens"] for name, one in train["sources"].items()}
    assert set(tokens) == {"anchor", "batch-2", "batch-3"}
    weights = {name: float(weight) for name, weight in train["mixture"][0]["weights"].items()}
    assert weights == pytest.approx({name: count / sum(tokens.values()) for name, count in tokens.items()}, rel=0.05)


def test_an_agent_steers_and_its_guard_knows_the_mixture_that_regmix_found(daemon: Daemon, tmp_path: Path) -> None:
    regmix = {"runs": 24, "tokens": 1024, "jobs": 1}
    agent = {"kind": "agent", "folder": str(agents.taught(tmp_path / "agent")), "regmix": regmix}
    strategy = {"name": "data-mixing", "mixing": {"kind": "weighted", "reweight": agent}}
    for number, jobs in enumerate(stages(daemon, tmp_path, "--set", f"strategy={json.dumps(strategy)}"), start=2):
        course = jobs["train"]["mixture"]
        found = {name: float(weight) for name, weight in jobs["fit"]["mixture_found"].items()}
        assert jobs["proxy-1"]["runs"] == 24
        assert len({json.dumps(point["weights"]) for point in course}) > 1, "nothing was re-weighted"
        daemon.cli("mixing", "export", f"s/{number}", "--out", str(tmp_path / "real.jsonl"))
        (run,) = read(tmp_path / "real.jsonl")
        assert set(found) == set(course[0]["weights"]) == set(run.names)
        assert sum(found.values()) == pytest.approx(1)
        assert found != pytest.approx(dict(zip(run.names, run.prior, strict=True)), abs=1e-3), "nothing was found"
        assert run.provenance.settings["mixing"]["reweight"]["found"] == pytest.approx(found)
