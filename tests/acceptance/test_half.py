"""Half fine-tuning by a real daemon: what stays is stored once, and another half stays at the next stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import models
from tests.acceptance.daemon import Daemon, write_jsonl

pytestmark = pytest.mark.slow
TRAINING = ("--set", "training.max_steps=12", "--set", "training.train_batch_size=8", "--set", "training.max_length=64")

EMBEDDINGS, NORM, BLOCKS = 512 * 32, 32, 2 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32)
HALF_AND_SMALL_FILES = (EMBEDDINGS + NORM + BLOCKS / 2) / (EMBEDDINGS + NORM + BLOCKS) + 0.02
"""The head is the embeddings' matrix."""


def weights(daemon: Daemon, version: str, folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a version as a user gets them."""
    daemon.cli("version", "export", version, str(folder))
    return {name: one for file in folder.glob("*.safetensors") for name, one in load_file(file).items()}


def frozen(daemon: Daemon, job: int) -> set[str]:
    """The matrices that a train job was given to keep, by value."""
    (spec,) = daemon.home.jobs.glob(f"{job}/*/job.json")
    return set(json.loads(spec.read_text())["work"]["template"]["selection"]["frozen"])


def test_two_stages_freeze_other_halves_and_store_the_rest_once(daemon: Daemon, tmp_path: Path) -> None:
    daemon.cli(
        *("stream", "add", "s", "--model", str(models.llama(tmp_path / "base")), "--strategy", "half-finetune"),
        *("--set", "gate.mode=record", *TRAINING),
    )
    before, halves = weights(daemon, "s/1", tmp_path / "v1"), []
    for number, start in ((2, 100), (3, 200)):
        daemon.cli("ingest", "s", str(write_jsonl(tmp_path / f"{number}.jsonl", models.texts(40, start=start))))
        daemon.cli("retrain", "s", "--wait")
        shown = daemon.json("version", "show", f"s/{number}")
        after = weights(daemon, f"s/{number}", tmp_path / f"v{number}")
        same = {name for name in after if torch.equal(after[name], before[name])}
        assert same == frozen(daemon, shown["job"]), "what was frozen is what did not move"
        assert same
        new = shown["facts"]["new_bytes"]
        assert 0 < new["share"] <= HALF_AND_SMALL_FILES
        halves.append(same)
        before = after
    assert halves[0] != halves[1], "the same half was frozen twice"
