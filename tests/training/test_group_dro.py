"""Group DRO against a bare torch step, over micro-batches, and resumed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from strategies.errors import BadPlan, Refused
from strategies.jobs.runtime import Stopped
from strategies.mixing.doremi import step as adversary_step
from strategies.objective.group_dro import GroupDro
from strategies.parts import GroupDroObjective
from strategies.training.batches import Batch
from strategies.training.loop import Loop
from strategies.training.seams import Run
from tests import models
from tests.training import makers

PRIOR = {"new": 0.75, "old": 0.25}
DOMAINS = {"batch-1": "new", "anchor": "old"}
ROWS = [("batch-1", 0), ("anchor", 1), ("batch-1", 2), ("batch-1", 3)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    import transformers

    folder = models.llama(tmp_path_factory.mktemp("reference"), seed=8)
    return transformers.AutoModelForCausalLM.from_pretrained(folder)


def robust(folder: Path, job: dict[str, Any], reference: Any, *, stop_at: int | None = None) -> Loop:
    loop = makers.loop(folder, job, stop_at=stop_at)
    settings = GroupDroObjective(prior=PRIOR, eta=1.0, smoothing=1e-3)
    loop.objective = loop.parts["objective"] = GroupDro(settings, DOMAINS, steps=loop.steps)
    loop._after_step = []
    loop.run.frozen_models["reference"] = reference
    loop.objective.begin(loop.run)
    return loop


def group_dro(loop: Loop) -> GroupDro:
    assert isinstance(loop.objective, GroupDro)
    return loop.objective


def a_job(folder: Path, model: Path, **changes: Any) -> dict[str, Any]:
    old = makers.text_documents(20, start=50)
    return makers.train_job(folder, model, makers.text_documents(20), old=old, **changes)


@pytest.fixture
def loop(tmp_path: Path, llama: Path, reference: Any) -> Loop:
    return robust(tmp_path / "job", a_job(tmp_path, llama), reference)


def token_losses(model: Any, batch: Any) -> torch.Tensor:
    logits = model(**batch.inputs).logits
    return cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), reduction="none").view_as(batch.targets)


def by_hand(loop: Loop, reference: Any) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Alpha and gradient of the first step as the paper writes them, domain by domain."""
    (batch,) = loop.collate(ROWS)
    counted = batch.targets != -100
    losses = token_losses(loop.run.model, batch)
    behind = (losses.detach() - token_losses(reference, batch).detach()).clamp(min=0)
    rows = {"new": [0, 2, 3], "old": [1]}
    excess = {name: float(behind[at][counted[at]].mean()) for name, at in rows.items()}
    alpha = adversary_step(PRIOR, excess, eta=1.0, smoothing=1e-3)
    weight = torch.tensor([alpha[DOMAINS[name]] / PRIOR[DOMAINS[name]] for name, _ in ROWS])[:, None] * counted
    loss = (losses * weight).sum() / weight.sum()
    found = torch.autograd.grad(loss, list(loop.run.parameters.values()))
    return alpha, dict(zip(loop.run.parameters, found, strict=True))


def gradients(loop: Loop, micro: int) -> dict[str, torch.Tensor]:
    (batch,) = loop.collate(ROWS)
    loop.run.optimizer.zero_grad()
    loop.objective.gradients(loop.run, batch.split(micro))
    return {name: makers.gradient(parameter).clone() for name, parameter in loop.run.parameters.items()}


@pytest.mark.parametrize("micro", [4, 3, 1])
def test_a_step_equals_the_one_by_hand(loop: Loop, reference: Any, micro: int) -> None:
    alpha, expected = by_hand(loop, reference)
    found = gradients(loop, micro)
    assert group_dro(loop).mixture() == pytest.approx(alpha, abs=1e-6)
    assert alpha["new"] != pytest.approx(0.75, abs=1e-4)
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)


def test_excess_is_clipped_token_by_token(loop: Loop, reference: Any) -> None:
    (batch,) = loop.collate(ROWS)
    behind = (token_losses(loop.run.model, batch) - token_losses(reference, batch)).detach()
    measured = group_dro(loop)._excess(loop.run, [batch], [token_losses(loop.run.model, batch)])
    old = behind[1][batch.targets[1] != -100]
    assert measured["old"] == pytest.approx(float(old.clamp(min=0).mean()), rel=1e-5)
    assert measured["old"] > max(0.0, float(old.mean())) + 1e-3


def test_a_domain_absent_from_a_step_keeps_its_last_excess(loop: Loop) -> None:
    gradients(loop, 4)
    before = loop.objective.state_dict().values["excess"]
    (batch,) = loop.collate([ROWS[0], ROWS[2]])
    loop.objective.gradients(loop.run, [batch])
    after = loop.objective.state_dict().values["excess"]
    assert after["old"] == before["old"] > 0
    assert after["new"] != before["new"]


def test_both_passes_over_a_step_have_the_same_dropout(
    tmp_path: Path, gpt2: Path, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = robust(tmp_path / "job", a_job(tmp_path, gpt2), reference)
    loop.run.model.train()
    seen: list[tuple[bool, torch.Tensor]] = []
    plain = group_dro(loop)._losses

    def losses(run: Run, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        seen.append((model is run.model, plain(run, model, batch)))
        return seen[-1][1]

    monkeypatch.setattr(loop.objective, "_losses", losses)
    gradients(loop, 2)
    first, second = (torch.cat(half) for half in _halves([found.detach() for own, found in seen if own]))
    assert torch.equal(first, second)


def _halves(found: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    return found[: len(found) // 2], found[len(found) // 2 :]


def test_the_reference_stays_as_it_is(loop: Loop, reference: Any) -> None:
    before = {name: tensor.clone() for name, tensor in reference.state_dict().items()}
    loop.train()
    makers.assert_equal(dict(reference.state_dict()), before)
    assert not reference.training
    assert all(parameter.grad is None for parameter in reference.parameters())


def test_stopping_at_any_step_changes_no_bit(tmp_path: Path, gpt2: Path, reference: Any) -> None:
    job = a_job(tmp_path, gpt2, training={"per_device_train_batch_size": 3})
    whole = robust(tmp_path / "whole", job, reference)
    whole.train()
    for step in range(1, 6):
        with pytest.raises(Stopped):
            robust(tmp_path / f"stopped-{step}", job, reference, stop_at=step).train()
        resumed = robust(tmp_path / f"stopped-{step}", job, reference)
        resumed.train()
        makers.assert_equal(makers.weights(resumed), makers.weights(whole))
        assert group_dro(resumed).mixture() == group_dro(whole).mixture()
        assert group_dro(resumed).trajectory() == group_dro(whole).trajectory()


def test_alpha_of_every_step_is_kept_as_evidence(loop: Loop) -> None:
    loop.train()
    course = group_dro(loop).trajectory()
    assert [point.step for point in course] == [1, 2, 3, 4, 5, 6]
    mean = sum(float(point.weights["old"]) for point in course) / 6
    assert group_dro(loop).mixture()["old"] == pytest.approx(mean, abs=1e-6)


def test_of_a_long_run_some_hundred_alphas_are_kept_and_the_last(
    tmp_path: Path, llama: Path, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strategies.objective.group_dro.MAX_POINTS", 2)
    job = a_job(tmp_path, llama, steps=5)
    stopped = robust(tmp_path / "stopped", job, reference, stop_at=4)
    with pytest.raises(Stopped):
        stopped.train()
    assert len(stopped.objective.state_dict().tensors["course"]) == 1
    resumed, whole = (robust(tmp_path / name, job, reference) for name in ("stopped", "whole"))
    resumed.train()
    whole.train()
    assert [point.step for point in group_dro(whole).trajectory()] == [3, 5]
    assert group_dro(resumed).trajectory() == group_dro(whole).trajectory()


def test_a_step_that_ran_out_of_memory_moves_alpha_once(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    update = group_dro(loop)._adversary.update
    calls: list[dict[str, float]] = []

    def once_too_large(excess: Mapping[str, float]) -> dict[str, float]:
        calls.append(update(excess))
        if len(calls) == 1:
            raise torch.OutOfMemoryError("no room")
        return calls[-1]

    monkeypatch.setattr(group_dro(loop)._adversary, "update", once_too_large)
    loop.train()
    assert len(calls) == 7
    assert calls[0] == pytest.approx(calls[1], abs=1e-6)
    assert loop.objective.state_dict().values["steps"] == 6


def test_what_does_not_fit_is_refused(loop: Loop) -> None:
    settings = GroupDroObjective(prior={"new": 1.0}, eta=1, smoothing=0)
    with pytest.raises(BadPlan, match="no prior weight"):
        GroupDro(settings, DOMAINS, steps=6)
    (batch,) = loop.collate(ROWS)
    with pytest.raises(Refused, match="belongs to no domain"):
        GroupDro(settings, {"batch-1": "new"}, steps=6).gradients(loop.run, [batch])
    loop.run.frozen_models.clear()
    with pytest.raises(Refused, match="frozen reference"):
        loop.objective.begin(loop.run)
