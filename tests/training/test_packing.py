"""Packed examples cannot see each other, or they are not packed."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from strategies.contract import ModelFiles
from strategies.inference.load import load
from strategies.training.packing import Packing, probe
from tests.training import makers


def model_at(folder: Path) -> Any:
    return load(ModelFiles(path=str(folder)), "causal-lm", device=torch.device("cpu")).model


def proven(model: Any) -> Packing:
    return probe(model, vocabulary=512, autocast=nullcontext, bf16=False)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_sound_model_passes(kind: str, request: pytest.FixtureRequest) -> None:
    found = proven(model_at(request.getfixturevalue(kind)))
    assert found.passed
    assert found.difference is not None
    assert found.difference <= 1e-5
    assert found.facts() == {"passed": True, "difference": found.difference, "tolerance": found.tolerance}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_model_that_is_given_a_full_mask_leaks(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_at(request.getfixturevalue(kind))
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda **given: forward(attention_mask=torch.ones_like(given["input_ids"]), **given)
    )
    found = proven(model)
    assert not found.passed
    assert found.difference is not None
    assert found.tolerance is not None
    assert found.difference > 10 * found.tolerance


def test_a_model_without_positions_cannot_be_packed(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_at(llama)

    def refuse(**given: Any) -> None:
        raise TypeError("unexpected argument position_ids")

    monkeypatch.setattr(model, "forward", refuse)
    found = proven(model)
    assert found == Packing(passed=False, reason="unexpected argument position_ids")
    assert found.facts() == {"passed": False, "reason": "unexpected argument position_ids"}


def test_training_on_packs_is_training_on_examples(tmp_path: Path, chat: Path) -> None:
    losses = []
    for packing in (True, False):
        job = makers.train_job(
            tmp_path, chat, makers.dialogues(4), task="sft", steps=1, training={"packing": packing, "max_length": 512}
        )
        job["work"]["template"]["mixing"]["batch"] = 4 if not packing else 1
        loop = makers.loop(tmp_path / str(packing), job)
        losses.append((len(loop.collate.sources["batch-1"]), loop.train().log.last))
    (packed_rows, packed_loss), (rows, loss) = losses
    assert (packed_rows, rows) == (1, 4)
    assert packed_loss == pytest.approx(loss, rel=1e-6)


def test_a_leaking_model_trains_on_padded_examples(tmp_path: Path, chat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strategies.jobs.measure.probe", lambda *_, **__: Packing(passed=False, difference=1.0))
    loop = makers.loop(tmp_path / "job", makers.train_job(tmp_path, chat, makers.dialogues(9), task="sft"))
    assert len(loop.collate.sources["batch-1"]) == 9
    assert "position_ids" not in loop.collate([("batch-1", 0), ("batch-1", 1)])[0].inputs
