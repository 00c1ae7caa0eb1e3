"""Half fine-tuning by a real daemon: what stays is stored once, and another half stays at the next stage."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests import models
from tests.acceptance.daemon import Daemon, write_jsonl

pytestmark = pytest.mark.slow
Weights = dict[str, Tensor]
TRAINING = ("--set", "training.max_steps=12", "--set", "training.train_batch_size=8", "--set", "training.max_length=64")


def weights(daemon: Daemon, version: str, folder: Path) -> Weights:
    """The tensors of a version as a user gets them."""
    daemon.cli("version", "export", version, str(folder))
    return {name: one for file in folder.glob("*.safetensors") for name, one in load_file(file).items()}


def half_and_small_files(tensors: Weights) -> float:
    """METHODS 2: embeddings, head and half of the blocks, as a share of all."""
    sizes = {name: tensor.numel() for name, tensor in tensors.items()}
    blocks = sum(size for name, size in sizes.items() if ".layers." in name or ".h." in name)
    return 1 - blocks / 2 / sum(sizes.values()) + 0.02


def selection(daemon: Daemon, job: int) -> dict[str, Any]:
    """What a train job was given to keep, by value."""
    (spec,) = daemon.home.jobs.glob(f"{job}/*/job.json")
    found: dict[str, Any] = json.loads(spec.read_text())["work"]["template"]["selection"]
    return found


def same_slices(given: dict[str, Any], before: Weights, after: Weights) -> set[str]:
    """The fused tensors of which the given slices, and no more, are as they were."""
    found = set()
    for name, slices in given["slices"].items():
        equal = torch.eq(before[name], after[name])
        for one in slices:
            assert equal.narrow(one["dim"], one["start"], one["stop"] - one["start"]).all(), name
        kept = sum(equal.numel() // equal.shape[one["dim"]] * (one["stop"] - one["start"]) for one in slices)
        if kept <= int(equal.sum()) < kept + 0.01 * equal.numel():
            found.add(name)
    return found


@pytest.mark.parametrize("shape", [models.llama, models.gpt2], ids=["matrices apart", "fused matrices"])
def test_two_stages_freeze_other_halves_and_store_the_rest_once(
    daemon: Daemon, tmp_path: Path, shape: Callable[[Path], Path]
) -> None:
    daemon.cli(
        *("stream", "add", "s", "--model", str(shape(tmp_path / "base")), "--strategy", "half-finetune"),
        *("--set", "gate.mode=record", *TRAINING),
    )
    before, halves = weights(daemon, "s/1", tmp_path / "v1"), []
    for number, start in ((2, 100), (3, 200)):
        daemon.cli("ingest", "s", str(write_jsonl(tmp_path / f"{number}.jsonl", models.texts(40, start=start))))
        daemon.cli("retrain", "s", "--wait")
        shown = daemon.json("version", "show", f"s/{number}")
        after, given = weights(daemon, f"s/{number}", tmp_path / f"v{number}"), selection(daemon, shown["job"])
        same = {name for name in after if torch.equal(after[name], before[name])}
        assert same == set(given["frozen"]), "what was frozen is what did not move"
        assert same
        assert same_slices(given, before, after) == set(given["slices"])
        assert bool(given["slices"]) == (shape is models.gpt2)
        new = shown["facts"]["new_bytes"]
        assert 0 < new["share"] <= min(half_and_small_files(after), new["bound"])
        halves.append((same, given["slices"]))
        before = after
    assert halves[0] != halves[1], "the same half was frozen twice"
