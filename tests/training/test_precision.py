"""Which precision a model gets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from strategies.errors import Refused
from strategies.inference import precision
from tests.training import makers


def test_a_small_model_stays_in_float32_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: True)
    assert not precision.choose(torch.nn.Linear(10, 10), "auto").bf16
    assert precision.choose(torch.nn.Linear(1000, 1000), "auto").bf16


def test_no_model_is_in_bfloat16_where_hardware_lacks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_cpu_has_bf16", lambda: False)
    assert not precision.choose(torch.nn.Linear(1000, 1000), "auto").bf16


def test_bfloat16_trains_with_weights_and_moments_in_float32(tmp_path: Path, llama: Path) -> None:
    losses = []
    for bf16 in (False, True):
        job = makers.train_job(tmp_path, llama, makers.text_documents(9), training={"bf16": bf16})
        loop = makers.loop(tmp_path / str(bf16), job)
        losses.append(loop.train().log.last)
        moments = [tensor for state in loop.run.optimizer.state.values() for tensor in state.values()]
        assert len(moments) == 3 * len(loop.run.parameters)
        assert {tensor.dtype for tensor in (*makers.weights(loop).values(), *moments)} == {torch.float32}
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=1e-2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refused, match="torch sees none"):
        precision.device_for("cuda")
