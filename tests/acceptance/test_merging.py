"""Merges and repairs by a real daemon, through the command line, on tiny real models."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from storage.artifacts import ArtifactStore
from tests import models
from tests.acceptance.daemon import Daemon, write_jsonl
from tests.acceptance.test_mos import write_classes
from tests.training.merges import folded, ties

# Peft still asks transformers by a name that transformers has deprecated.
PEFT = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
pytestmark = [pytest.mark.slow, PEFT]
Weights = dict[str, Tensor]
RANK = 8
"""Of an adapter, where nothing else is set."""
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


def weights(folder: Path) -> Weights:
    return dict(transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict())


def exported(daemon: Daemon, version: str, folder: Path) -> Weights:
    daemon.cli("version", "export", version, str(folder))
    return weights(folder)


def ended(daemon: Daemon, tmp_path: Path, decision: int, *names: str) -> list[Weights]:
    """What jobs of a decision ended with, adapters merged into the base."""
    ids = {one["name"]: one["id"] for one in daemon.json("job", "list", "s") if one["decision"] == decision}
    found = []
    for name in names:
        answers = daemon.json("job", "show", str(ids[name]))["artifacts"]
        (role,) = (role for role in ("answer/adapter", "answer/model") if role in answers)
        folder = ArtifactStore(daemon.home.artifacts).copy_out(answers[role], tmp_path / f"{name}-of-{decision}")
        found.append(folded(tmp_path / "base", folder) if role == "answer/adapter" else weights(folder))
    return found


def mean(one: Weights, two: Weights) -> Weights:
    return {name: (one[name] + two[name]) / 2 for name in one}


def cut(changed: Weights, base: Weights) -> Weights:
    """The base with the nearest change that an adapter's rank can hold."""
    found = dict(base)
    for name, tensor in changed.items():
        if tensor.ndim == 2:
            u, sizes, vh = torch.linalg.svd(tensor - base[name], full_matrices=False)
            found[name] = base[name] + (u[:, :RANK] * sizes[:RANK]) @ vh[:RANK]
    return found


def tied(base: Weights, *parents: Weights, density: float) -> Weights:
    """TIES of the weights that adapters changed."""
    names = [name for name in base if not torch.equal(base[name], parents[0][name])]
    rows = torch.stack([torch.cat([(one[name] - base[name]).flatten() for name in names]) for one in parents])
    parts = torch.split(ties(rows, int(density * rows.shape[1])), [base[name].numel() for name in names])
    changes = zip(names, parts, strict=True)
    return base | {name: base[name] + part.view_as(base[name]) for name, part in changes}


def distance(one: Weights, two: Weights) -> float:
    """Norm of the difference of all numbers."""
    assert one.keys() == two.keys()
    return math.hypot(*(float((one[name] - two[name]).norm()) for name in one))


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
    base, *parents = (exported(daemon, f"s/{number}", tmp_path / f"v{number}") for number in (1, 2, 3))
    daemon.cli("version", "export", "s/4", str(tmp_path / "adapter"), "--as-adapter")
    found, wanted = folded(tmp_path / "base", tmp_path / "adapter"), cut(tied(base, *parents, density=0.3), base)
    assert distance(found, wanted) < 0.01 * distance(wanted, base)
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
        siblings = ended(daemon, tmp_path, number - 1, "train-1", "train-2")
        wanted = mean(*siblings) if tuner == "full" else cut(mean(*siblings), weights(tmp_path / "base"))
        found = exported(daemon, f"s/{number}", tmp_path / f"v{number}")
        assert distance(found, wanted) < 1e-4 * distance(*siblings)
    assert "merges 2 siblings by soup" in daemon.json("decision", "show", "2")["reason"]


def infinite(daemon: Daemon, tmp_path: Path, tuner: str) -> None:
    consolidation = ("strategy.consolidation.kind=merge", "strategy.consolidation.siblings=1")
    settings = (*consolidation, "strategy.schedule=infinite", f"training.tuner={tuner}", "gate.mode=record")
    stream(daemon, tmp_path, *(part for one in settings for part in ("--set", one)))


def assert_averaged(daemon: Daemon, tmp_path: Path, stage: int) -> None:
    """The live version is the mean of the release and the trunk of its stage, and keeps the trunk's state."""
    made = daemon.json("version", "show", "s@live")
    assert (made["state"], list(made["facts"]["jobs"])) == ("live", ["trunk", "release-1", "merge"])
    assert set(made["facts"]["jobs"]["merge"]["weights"]) == {"release-1", "start"}
    assert made["artifacts"].keys() >= {"state/trunk", "state/optimizer", "state/mixing"}
    trunk, release = ended(daemon, tmp_path, stage, "trunk", "release-1")
    found = exported(daemon, "s@live", tmp_path / f"v{stage}")
    assert distance(found, mean(trunk, release)) < 1e-4 * distance(trunk, release)


def test_an_infinite_schedules_release_is_averaged_with_its_trunk_which_goes_on(daemon: Daemon, tmp_path: Path) -> None:
    infinite(daemon, tmp_path, "full")
    for stage in (1, 2):
        retrain(daemon, tmp_path, 100 * stage)
        assert_averaged(daemon, tmp_path, stage)
    assert "Continues the trunk" in daemon.json("decision", "show", "2")["reason"]


def test_a_release_and_a_trunk_of_adapters_become_a_model_on_which_a_trunk_is_begun(
    daemon: Daemon, tmp_path: Path
) -> None:
    infinite(daemon, tmp_path, "lora")
    retrain(daemon, tmp_path, 100)
    assert_averaged(daemon, tmp_path, 1)
    daemon.cli("ingest", "s", str(write_jsonl(tmp_path / "next.jsonl", models.texts(40, start=200))))
    preview = daemon.json("retrain", "s", "--dry-run")
    assert "Begins a trunk, because the live version is a merged model" in preview["reason"]


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
