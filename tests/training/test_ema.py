"""The moving average of a training: what it is, and that an interruption does not change it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from strategies.jobs.runtime import Stopped
from strategies.training.seams import Part, Run
from tests.training import makers


def averaging(tmp_path: Path, model: Path, decay: float | None = 0.8) -> dict[str, Any]:
    return makers.train_job(
        tmp_path, model, makers.text_documents(20), steps=6, consolidation={"kind": "ema", "decay": decay}
    )


def test_the_result_is_the_average_of_the_weights_after_each_step(tmp_path: Path, llama: Path) -> None:
    plain = makers.loop(tmp_path / "plain", averaging(tmp_path, llama))
    plain.parts.pop("consolidation")
    expected = makers.weights(plain)

    class Spy(Part):
        def after_step(self, run: Run, step: int) -> None:
            for name, one in run.parameters.items():
                expected[name] = 0.8 * expected[name] + 0.2 * one.detach()

    plain._after_step = [Spy()]
    plain.train()
    averaged = makers.loop(tmp_path / "averaged", averaging(tmp_path, llama))
    averaged.train()
    found = makers.weights(averaged)
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)
    assert averaged.progress.log.points == plain.progress.log.points


def test_an_interrupted_average_is_the_same_bit_for_bit(tmp_path: Path, llama: Path) -> None:
    job = averaging(tmp_path, llama, None)
    whole = makers.loop(tmp_path / "whole", job)
    whole.train()
    for step in (1, 3, 5):
        with pytest.raises(Stopped):
            makers.loop(tmp_path / f"stopped-{step}", job, stop_at=step).train()
        resumed = makers.loop(tmp_path / f"stopped-{step}", job)
        resumed.train()
        assert resumed.progress.resumed_from == [step]
        makers.assert_equal(makers.weights(resumed), makers.weights(whole))
