"""The loop against a bare one, its guards, and its accounts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from strategies.contract import JobSpec
from strategies.errors import Diverged, StrategyError
from strategies.inference.load import load
from strategies.objective.causal_lm import CausalLm
from strategies.schedule import rate
from strategies.training import update
from strategies.training.batches import Batch
from strategies.training.ledger import LossLog
from strategies.training.loop import Loop
from strategies.training.seams import Run
from tests.training import makers

Fault = Callable[[Run, torch.Tensor, Batch], torch.Tensor]


def bare(loop: Loop, job: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What anybody would write: the same batches, AdamW, clipping, schedule."""
    spec = JobSpec.model_validate(job)
    model = load(spec.model, spec.task, device=torch.device("cpu")).model.train()
    named = dict(model.named_parameters())
    matrices = [p for p in named.values() if p.ndim >= 2]
    vectors = [p for p in named.values() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-8, fused=True)
    mixer, schedule = makers.replay(loop, job), makers.template_of(job).schedule
    for step in range(1, loop.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate(schedule, step)
        micro = loop.collate(mixer.draw(step))
        weight = sum(int((batch.targets != -100).sum()) for batch in micro)
        for batch in micro:
            logits = model(**batch.inputs).logits
            loss = cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="sum") / weight
            torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return {name: parameter.detach() for name, parameter in named.items()}


@pytest.fixture(params=["at once", "a step later"])
def outcome(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A GPU's way of telling how a step went, which works on a CPU as well."""
    if request.param == "a step later":
        monkeypatch.setattr(update, "_at_once", update._later)
    return str(request.param)


@pytest.mark.usefixtures("outcome")
@pytest.mark.parametrize("micro", [None, 3])
def test_the_loop_equals_a_bare_loop_bit_for_bit(tmp_path: Path, llama: Path, micro: int | None) -> None:
    documents, old = makers.text_documents(20), makers.text_documents(20, start=50)
    job = makers.train_job(tmp_path, llama, documents, old=old, training={"per_device_train_batch_size": micro})
    loop = makers.loop(tmp_path / "job", job)
    loop.train()
    makers.assert_equal(makers.weights(loop), bare(loop, job))


def test_micro_batches_of_unequal_length_leave_the_same_gradient(tmp_path: Path, chat: Path) -> None:
    job = makers.train_job(tmp_path, chat, makers.dialogues(20), task="sft", steps=1, training={"packing": False})
    losses = []
    for micro in (4, 1):
        loop = makers.loop(tmp_path / f"job{micro}", job)
        loop.collate.micro = micro
        loop.train()
        losses.append((loop.progress.log.last, loop.run.optimizer.state_dict()["state"][0]["exp_avg"]))
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-6)
    assert torch.allclose(losses[0][1], losses[1][1], atol=1e-7)


def test_unpacked_examples_replay_a_share_of_the_tokens(tmp_path: Path, chat: Path) -> None:
    """The old dialogues are several times as long: a share of rows would be most of the tokens."""
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    new, old = [{"messages": json.dumps(said)}] * 20, makers.dialogues(20)
    changes: dict[str, Any] = {"training": {"packing": False}, "mixing": {"share": "0.5"}}
    job = makers.train_job(tmp_path, chat, new, old=old, task="sft", **changes)
    loop = makers.loop(tmp_path / "job", job)
    drawn = [row for step in range(1, 9) for row in loop.mixing.draw(step)]
    lengths = {name: np.diff(rows.bounds) for name, rows in loop.collate.sources.items()}
    taken = {name: sum(int(lengths[name][row]) for of, row in drawn if of == name) for name in lengths}
    assert lengths["anchor"].mean() > 2 * lengths["batch-1"].mean()
    assert taken["anchor"] == pytest.approx(sum(taken.values()) / 2, abs=float(max(map(max, lengths.values()))))


def test_moments_start_anew_with_every_stage(tmp_path: Path, llama: Path) -> None:
    job = makers.train_job(tmp_path, llama, makers.text_documents(10), steps=1, training={"max_grad_norm": 0})
    first = makers.carry_out(tmp_path / "first", {**job, "work": _with_template(job, state=["state/optimizer"])})
    assert load_file(tmp_path / "first" / first.artifacts["state/optimizer"] / "optimizer.safetensors")
    again = {**job, "model": {**job["model"], "path": str(tmp_path / "first" / first.artifacts["answer/model"])}}
    loop = makers.loop(tmp_path / "second", again)
    seen = {}
    for name, parameter in loop.run.parameters.items():
        parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            lambda p, name=name: seen.update({name: p.grad.clone()})
        )
    loop.train()
    for name, parameter in loop.run.parameters.items():
        state = loop.run.optimizer.state[parameter]
        assert state["step"] == 1
        assert torch.allclose(state["exp_avg"], (1 - 0.9) * seen[name], rtol=1e-5, atol=1e-12)


def _with_template(job: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**job["work"], "template": {**job["work"]["template"], **changes}}


class Faulty(CausalLm):
    """An objective that goes wrong at chosen calls."""

    def __init__(self, fault: Fault, calls: set[int]) -> None:
        self.fault, self.calls, self.count = fault, calls, 0

    def loss(self, run: Run, batch: Batch) -> torch.Tensor:
        self.count += 1
        return (
            self.fault(run, super().loss(run, batch), batch) if self.count in self.calls else super().loss(run, batch)
        )


def nan_loss(run: Run, loss: torch.Tensor, batch: Batch) -> torch.Tensor:
    return loss * float("nan")


def nan_gradient(run: Run, loss: torch.Tensor, batch: Batch) -> torch.Tensor:
    """The loss stays finite: the root's slope at 0 is infinite."""
    return loss + (next(iter(run.parameters.values())).sum() * 0).sqrt()


def nan_weight(run: Run, loss: torch.Tensor, batch: Batch) -> torch.Tensor:
    next(iter(run.parameters.values())).data.fill_(float("nan"))
    return loss * float("nan")


def faulty(tmp_path: Path, llama: Path, fault: Fault, calls: set[int], **training: Any) -> Loop:
    loop = makers.loop(
        tmp_path / "job", makers.train_job(tmp_path, llama, makers.text_documents(20), training=training)
    )
    loop.objective = Faulty(fault, calls)
    return loop


@pytest.mark.usefixtures("outcome")
@pytest.mark.parametrize("fault", [nan_loss, nan_gradient])
def test_a_step_that_is_not_finite_is_not_applied(
    tmp_path: Path, llama: Path, fault: Fault, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = faulty(tmp_path, llama, fault, {3})
    progress = loop.train()
    assert progress.skipped == [3]
    assert sum(progress.ledger.samples.values()) == 5 * 4
    assert all(torch.isfinite(tensor).all() for tensor in makers.weights(loop).values())
    assert "step 3 skipped" in capsys.readouterr().out


@pytest.mark.usefixtures("outcome")
def test_the_third_step_that_is_not_finite_ends_the_job(tmp_path: Path, llama: Path) -> None:
    loop = faulty(tmp_path, llama, nan_loss, {2, 3, 4})
    with pytest.raises(Diverged, match=r"step 4 is not finite, 3 times within.*learning_rate"):
        loop.train()


@pytest.mark.usefixtures("outcome")
def test_stray_steps_that_are_not_finite_are_left_out_for_as_long_as_a_job_runs(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strategies.training.loop.AMONG", 2)
    loop = faulty(tmp_path, llama, nan_loss, {1, 3, 5}, save_steps=2)
    assert loop.train().skipped == [1, 3, 5]


@pytest.mark.usefixtures("outcome")
def test_weights_that_are_not_finite_go_back_to_the_checkpoint(tmp_path: Path, llama: Path) -> None:
    loop = faulty(tmp_path, llama, nan_weight, {5}, save_steps=2)
    progress = loop.train()
    undisturbed = makers.loop(tmp_path / "other", makers.train_job(tmp_path, llama, makers.text_documents(20)))
    undisturbed.train()
    assert (progress.skipped, progress.resumed_from) == ([5], [4])
    makers.assert_equal(makers.weights(loop), makers.weights(undisturbed))


@pytest.mark.usefixtures("outcome")
def test_weights_that_are_not_finite_without_a_checkpoint_end_the_job(tmp_path: Path, llama: Path) -> None:
    with pytest.raises(Diverged, match="no checkpoint"):
        faulty(tmp_path, llama, nan_weight, {2}).train()


def out_of_memory(run: Run, loss: torch.Tensor, batch: Batch) -> torch.Tensor:
    if len(batch) > 1:
        raise torch.OutOfMemoryError("no room")
    return loss


def test_out_of_memory_halves_the_rows_at_a_time_and_nothing_else(tmp_path: Path, llama: Path) -> None:
    loop = faulty(tmp_path, llama, out_of_memory, set(range(2, 99)))
    loop.train()
    small = makers.loop(tmp_path / "other", makers.train_job(tmp_path, llama, makers.text_documents(20)))
    small.train()
    assert loop.collate.micro == 1
    assert loop.progress.log.last == pytest.approx(small.progress.log.last, rel=1e-6)
    assert loop.progress.mixing == small.progress.mixing


def test_out_of_memory_with_one_row_ends_the_job(tmp_path: Path, llama: Path) -> None:
    def always(run: Run, loss: torch.Tensor, batch: Batch) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(StrategyError, match="max_length"):
        faulty(tmp_path, llama, always, set(range(99))).train()


def test_recomputing_activations_changes_no_loss(tmp_path: Path, llama: Path) -> None:
    losses = []
    for again in (False, True):
        job = makers.train_job(tmp_path, llama, makers.text_documents(9), training={"gradient_checkpointing": again})
        losses.append(makers.loop(tmp_path / str(again), job).train().log.points)
    assert losses[0] == losses[1]


def test_the_log_of_losses_is_bounded() -> None:
    log = LossLog(100_000)
    for step in range(1, 100_001):
        log.add(step, float(step), 0.1)
    assert len(log.points) == 500
    assert log.points[0] == (200, 100.5, 0.1)
