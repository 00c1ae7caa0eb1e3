"""Merges and repairs by a real daemon, through the command line, on tiny real models."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests import models
from tests.acceptance.daemon import Daemon, write_jsonl
from tests.acceptance.test_mos import write_classes

pytestmark = pytest.mark.slow
TRAINING = ("--set", "training.max_steps=20", "--set", "training.train_batch_size=8", "--set", "training.max_length=64")


def stream(daemon: Daemon, tmp_path: Path, *more: str) -> None:
    """Stream ``s`` on a tiny model with an anchor."""
    anchor = write_jsonl(tmp_path / "anchor.jsonl", models.texts(40))
    daemon.cli(
        *("stream", "add", "s", "--model", str(models.llama(tmp_path / "base"))),
        *("--set", f"anchor={anchor}", "--strategy", "naive", *TRAINING, *more),
    )


def retrain(daemon: Daemon, tmp_path: Path, start: int) -> None:
    batch = write_jsonl(tmp_path / f"batch-{start}.jsonl", models.texts(40, start=start))
    daemon.cli("ingest", "s", str(batch))
    daemon.cli("retrain", "s", "--wait")


def test_two_adapters_are_merged_into_a_third_that_is_measured_and_judged(daemon: Daemon, tmp_path: Path) -> None:
    stream(
        daemon, tmp_path, "--set", "gate.mode=record", "--set", "training.tuner=lora",
        "--set", "training.learning_rate=0.01",
    )  # fmt: skip
    for start in (100, 200):
        retrain(daemon, tmp_path, start)
    shown = daemon.json("merge", "s/2", "s/3", "--method", "ties", "--set", "density=0.3", "--dry-run")
    assert (shown["base"], shown["into"], shown["job"]) == (1, "adapter", None)
    made = daemon.json("merge", "s/2", "s/3", "--method", "ties", "--set", "density=0.3", "--wait")
    assert made["state"] == "live"
    assert made["edges"] == [{"parent": n, "role": "merged", "weight": 1.0} for n in (2, 3)]
    behind = {batch for n in (2, 3) for batch in daemon.json("version", "show", f"s/{n}")["batches"]}
    assert set(made["batches"]) == behind
    assert set(made["scores"]) == set(daemon.json("version", "show", "s/3")["scores"])
    assert made["facts"]["jobs"]["merge"]["method"]["density"] == 0.3
    daemon.cli("version", "export", "s/4", str(tmp_path / "adapter"), "--as-adapter")
    assert load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    daemon.cli("rollback", "s", "--to", "2", "--reason", "the merge was worse")
    held = [one["id"] for one in daemon.json("batch", "list", "s") if one["state"] == "held"]
    assert held == sorted(behind - set(daemon.json("version", "show", "s/2")["batches"]))


@pytest.mark.parametrize("tuner", ["full", "lora"])
def test_a_stage_ends_with_the_mean_of_its_siblings(daemon: Daemon, tmp_path: Path, tuner: str) -> None:
    consolidation = (
        "strategy.consolidation.kind=merge",
        "strategy.consolidation.siblings=2",
        f"training.tuner={tuner}",
    )
    sets = [
        part for one in (*consolidation, "gate.mode=record", "training.learning_rate=0.01") for part in ("--set", one)
    ]
    stream(daemon, tmp_path, *sets)
    for number, start in ((2, 100), (3, 200)):
        retrain(daemon, tmp_path, start)
        made = daemon.json("version", "show", f"s/{number}")
        assert (made["state"], list(made["facts"]["jobs"])) == ("live", ["train-1", "train-2", "merge"])
        inputs = made["facts"]["jobs"]["merge"]["inputs"]
        assert set(inputs) == {"start", "train-1", "train-2"}
        assert inputs["train-1"] != inputs["train-2"]
        assert [one["role"] for one in made["edges"]] == ["init"]
    assert "merges 2 siblings by soup" in daemon.json("decision", "show", "2")["reason"]


def test_an_infinite_schedules_release_is_averaged_with_its_trunk_which_goes_on(daemon: Daemon, tmp_path: Path) -> None:
    consolidation = ("strategy.consolidation.kind=merge", "strategy.consolidation.siblings=1")
    settings = (*consolidation, "strategy.schedule=infinite", "training.tuner=lora", "gate.mode=record")
    stream(daemon, tmp_path, *(part for one in settings for part in ("--set", one)))
    for start in (100, 200):
        retrain(daemon, tmp_path, start)
    made = daemon.json("version", "show", "s/3")
    assert (made["state"], list(made["facts"]["jobs"])) == ("live", ["trunk", "release-1", "merge"])
    assert set(made["facts"]["jobs"]["merge"]["weights"]) == {"release-1", "start"}
    assert made["artifacts"].keys() >= {"state/trunk", "state/optimizer", "state/mixing"}
    assert "Continues the trunk" in daemon.json("decision", "show", "2")["reason"]


def test_stages_of_a_growing_list_of_classes_end_with_a_merge_and_are_merged_themselves(
    daemon: Daemon, tmp_path: Path
) -> None:
    """The second stage averages its one sibling with what it started from, which lacks the new class."""
    settings = ("gate.mode=record", "training.learning_rate=0.001", "training.max_steps=20", "training.max_length=64")
    sets = [part for one in (*settings, "strategy.consolidation.kind=merge") for part in ("--set", one)]
    model = models.bert(tmp_path / "base")
    daemon.cli("stream", "add", "s", "--model", str(model), "--task", "classification", "--strategy", "naive", *sets)
    for siblings, labels in ((2, ("red", "blue")), (1, ("green",))):
        daemon.cli("stream", "set", "s", "--set", f"strategy.consolidation.siblings={siblings}")
        daemon.cli("ingest", "s", str(write_classes(tmp_path / f"{siblings}.jsonl", labels, start=100 * siblings)))
        daemon.cli("retrain", "s", "--wait", timeout_s=600)
    second, third = (daemon.json("version", "show", f"s/{number}") for number in (2, 3))
    assert list(second["facts"]["jobs"]) == ["train-1", "train-2", "merge"]
    assert list(third["facts"]["jobs"]) == ["train-1", "merge"]
    assert set(third["facts"]["jobs"]["merge"]["weights"]) == {"train-1", "start"}
    assert third["facts"]["labels"] == ["blue", "red", "green"]
    made = daemon.json("merge", "s/2", "s/3", "--method", "fisher", "--wait")
    assert (made["state"], made["facts"]["labels"]) == ("live", ["blue", "red", "green"])


def test_a_candidate_that_forgot_is_repaired_after_the_daemon_was_killed(daemon: Daemon, tmp_path: Path) -> None:
    stream(daemon, tmp_path, "--set", "training.learning_rate=0.01", "--set", "split.heldout=0.4")
    retrain(daemon, tmp_path, 100)
    numbers = (" ".join(hashlib.sha256(f"{at} {n}".encode()).hexdigest() for n in range(4)) for at in range(60))
    daemon.cli("ingest", "s", str(write_jsonl(tmp_path / "numbers.jsonl", numbers)))
    made = daemon.json("retrain", "s")
    job = daemon.wait(lambda: next((one for one in daemon.json("job", "list", "s") if one["name"] == "repair"), None))
    daemon.kill()
    daemon.start()
    ended = daemon.wait(lambda: closed(daemon, made["id"]))
    first, live = (daemon.json("version", "show", f"s/{number}") for number in (3, ended["version"]))
    assert job["decision"] == made["id"]
    assert first["verdict"]["details"]["only_forgot"]
    assert (first["state"], live["state"], live["strategy"]) == ("rejected", "live", "repair"), ended["outcome"]
    assert f"repaired by job {job['id']}" in first["rejection"]
    assert [(one["parent"], one["role"]) for one in live["edges"]] == [(2, "merged"), (3, "merged")]
    assert sum(one["weight"] for one in live["edges"]) == pytest.approx(1)
    assert live["scores"]["anchor"] < first["scores"]["anchor"]
    assert {one["state"] for one in daemon.json("batch", "list", "s") if one["id"] in live["batches"]} == {"trained"}


def closed(daemon: Daemon, decision: int) -> dict[str, Any] | None:
    found: dict[str, Any] = daemon.json("decision", "show", str(decision))
    return found if found["state"] == "closed" else None
