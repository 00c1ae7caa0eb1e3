"""Merging with the mean of the predecessors: the rule, its two spaces, when it happens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from strategies.consolidation.task_mean import TaskMean, pull, relative_gap, truncated_mean
from strategies.errors import BadPlan
from strategies.settings.consolidation import TaskMeanConsolidation
from strategies.training.lora import Predecessor
from strategies.training.seams import Run
from tests.benchmarks.mos_released import Released

NAMES = ("base_model.model.block.0.q", "base_model.model.block.1.q")


def pair(seed: int, rank: int = 2, inner: int = 7, outer: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, inner, generator=generator), torch.randn(outer, rank, generator=generator)


def stored(seed: int, scale: float = 2.0) -> Predecessor:
    made = {name: pair(seed + 10 * place) for place, name in enumerate(NAMES)}
    return Predecessor(
        tensors={f"{name}.lora_{which}.weight": made[name][at] for name in NAMES for at, which in enumerate("AB")},
        scale=scale,
    )


def run_of(seed: int) -> Run:
    """A live adapter ``t3`` beside a head, after one step of its optimizer."""
    parameters = {"classifier.weight": nn.Parameter(torch.ones(2, 5))}
    for place, name in enumerate(NAMES):
        for which, tensor in zip("AB", pair(seed + 10 * place), strict=True):
            parameters[f"body.{name}.lora_{which}.t3.weight"] = nn.Parameter(tensor)
    optimizer = torch.optim.AdamW(parameters.values(), lr=0.0)
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for group in optimizer.param_groups:
        group["lr"], group["base_lr"] = 0.01, 0.04
    precision: Any = SimpleNamespace(device=torch.device("cpu"))
    return Run(model=None, precision=precision, parameters=parameters, optimizer=optimizer, step=1)


def part(*predecessors: Predecessor, kind: type[TaskMean] = TaskMean, steps: int = 1, **settings: Any) -> TaskMean:
    made = {"merge_every": "epoch", "space": "factor", **settings}
    return kind(TaskMeanConsolidation(**made), predecessors, adapter="t3", scale=2.0, epoch_steps=steps)


def adapters(run: Run) -> dict[str, Tensor]:
    return {
        name.removeprefix("body.").replace(".t3", ""): one.detach().clone()
        for name, one in run.parameters.items()
        if "lora_" in name
    }


def product(factors: tuple[Tensor, Tensor], scale: float) -> Tensor:
    return scale * factors[1].double() @ factors[0].double()


# --- the rule ----------------------------------------------------------------------------------------------------


def test_alpha_one_gives_exactly_the_mean_of_the_predecessors() -> None:
    run, before = run_of(3), [stored(1), stored(2)]
    part(*before, alpha=1).after_step(run, 1)
    for name, tensor in adapters(run).items():
        assert torch.equal(tensor, torch.stack([one.tensors[name] for one in before]).mean(0))


@pytest.mark.parametrize("space", ["factor", "delta", "auto"])
def test_alpha_zero_leaves_weights_untouched(space: str) -> None:
    run, before = run_of(3), adapters(run_of(3))
    part(stored(1), alpha=0, space=space).after_step(run, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapters(run).items())


def test_alpha_between_moves_that_share_of_the_way_and_nothing_else() -> None:
    run, start = run_of(3), adapters(run_of(3))
    one, two = stored(1), stored(2)
    part(one, two, alpha=0.1).after_step(run, 1)
    for name, tensor in adapters(run).items():
        wanted = 0.9 * start[name] + 0.1 * (one.tensors[name] + two.tensors[name]) / 2
        torch.testing.assert_close(tensor, wanted)
    assert torch.equal(run.parameters["classifier.weight"], torch.ones(2, 5))


def test_the_first_task_is_left_alone() -> None:
    run, before = run_of(3), adapters(run_of(3))
    first = part(alpha=1)
    first.after_step(run, 1)
    first.end(run)
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapters(run).items())


@pytest.mark.parametrize("space", ["factor", "delta"])
def test_predecessors_are_copies_that_nothing_changes(space: str) -> None:
    given = stored(1)
    made = part(given, alpha=0.5, space=space)
    copies = {name: tensor.clone() for name, tensor in given.tensors.items()}
    for tensor in given.tensors.values():
        tensor.zero_()
    made.after_step(run_of(3), 1)
    kept = made.predecessors[0].tensors
    assert all(torch.equal(tensor, copies[name]) for name, tensor in kept.items())


# --- when --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("every", "merged"), [("step", [1, 2, 3, 4, 5]), ("epoch", [2, 4, 5]), ("task", [5])])
def test_merging_happens_every_step_every_epoch_or_once(every: str, merged: list[int]) -> None:
    run, made, seen = run_of(3), part(stored(1), merge_every=every, steps=2), []
    for run.step in range(1, 6):
        before = adapters(run)
        made.after_step(run, run.step)
        if run.step == 5:
            made.end(run)
        if any(not torch.equal(tensor, before[name]) for name, tensor in adapters(run).items()):
            seen.append(run.step)
    assert seen == merged


@pytest.mark.parametrize(("scaled", "alpha"), [(True, 0.2 * 0.25), (False, 0.2)])
def test_a_merge_a_step_weakens_with_the_learning_rate(scaled: bool, alpha: float) -> None:
    run, start, one = run_of(3), adapters(run_of(3)), stored(1)
    part(one, alpha=0.2, merge_every="step", scale_alpha_by_lr=scaled, steps=9).after_step(run, 1)
    for name, tensor in adapters(run).items():
        torch.testing.assert_close(tensor, (1 - alpha) * start[name] + alpha * one.tensors[name])


def survives(merge: str, curvature: float) -> float:
    """METHODS 3.4: what is left of a task's way from 0 to 1 after 20 epochs of 53 steps of SGD with momentum."""
    task, speed, epochs, steps, first = torch.zeros(1), 0.0, 20, 53, 0.03
    for epoch in range(epochs):
        lr = first * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * epoch / epochs)).item())
        for _ in range(steps):
            for _ in range(12 if merge == "released" else 0):
                pull(task, [torch.zeros(1)], 0.1)
            speed = 0.9 * speed + curvature * (task.item() - 1)
            task -= lr * speed
            if merge in ("step", "scaled", "released"):
                pull(task, [torch.zeros(1)], 0.1 * (lr / first if merge == "scaled" else 1))
        if merge == "epoch":
            pull(task, [torch.zeros(1)], 0.1)
    if merge == "task":
        pull(task, [torch.zeros(1)], 0.1)
    return task.item()


@pytest.mark.parametrize(
    ("merge", "left"),
    [
        ("none", (1.0, 1.0, 1.0)),
        ("released", (0.0, 0.002, 0.022)),
        ("step", (0.002, 0.017, 0.142)),
        ("scaled", (0.229, 0.749, 0.968)),
        ("epoch", (0.536, 0.744, 0.867)),
        ("task", (0.9, 0.9, 0.9)),
    ],
)
def test_as_much_of_a_task_survives_as_in_the_simulation(merge: str, left: tuple[float, ...]) -> None:
    assert [survives(merge, curvature) for curvature in (0.1, 1, 10)] == pytest.approx(left, abs=0.002)


# --- products ----------------------------------------------------------------------------------------------------


def test_the_truncated_mean_is_the_best_of_its_rank() -> None:
    factors, scales, weights = [pair(seed) for seed in range(4)], [2.0, 1.0, 0.5, 2.0], [0.7, 0.1, 0.1, 0.1]
    a, b = truncated_mean(factors, scales, weights, scale=2.0)
    dense = sum(w * product(one, s) for w, s, one in zip(weights, scales, factors, strict=True))
    u, values, v = torch.linalg.svd(dense)
    best = (u[:, :2] * values[:2]) @ v[:2]
    torch.testing.assert_close(product((a, b), 2.0), best)
    assert (product((a, b), 2.0) - dense).norm() == pytest.approx(float(values[2:].norm()))


def test_products_of_one_adapter_come_back_whatever_its_factors() -> None:
    one = pair(1)
    a, b = truncated_mean([one, one], [2.0, 2.0], [0.5, 0.5], scale=2.0)
    torch.testing.assert_close(product((a, b), 2.0), product(one, 2.0))
    torch.testing.assert_close(a.norm(dim=1), b.norm(dim=0))


def test_a_rank_above_the_matrix_is_filled_with_zeros() -> None:
    wide = pair(1, rank=6, inner=7, outer=3)
    a, b = truncated_mean([wide], [1.0], [1.0], scale=1.0)
    assert (a.shape, b.shape) == ((6, 7), (3, 6))
    torch.testing.assert_close(product((a, b), 1.0), product(wide, 1.0))


def test_merging_products_forgets_the_order_of_the_factors_and_clears_moments() -> None:
    run, one = run_of(3), stored(1)
    start = adapters(run)
    part(one, alpha=0.4, space="delta").after_step(run, 1)
    for name in NAMES:
        old, before, now = (
            (made[f"{name}.lora_A.weight"], made[f"{name}.lora_B.weight"])
            for made in (start, one.tensors, adapters(run))
        )
        u, values, v = torch.linalg.svd(0.6 * product(old, 2.0) + 0.4 * product(before, 2.0))
        torch.testing.assert_close(product(now, 2.0), (u[:, :2] * values[:2]) @ v[:2], atol=1e-5, rtol=1e-5)
    state = run.optimizer.state[run.parameters[f"body.{NAMES[0]}.lora_A.t3.weight"]]
    assert not any(value.any() for value in state.values())
    assert run.optimizer.state[run.parameters["classifier.weight"]]["exp_avg"].any()


def test_products_are_not_merged_every_step() -> None:
    with pytest.raises(BadPlan, match="every epoch or task"):
        part(stored(1), merge_every="step", space="delta")


# --- the gap -----------------------------------------------------------------------------------------------------


def test_the_gap_is_the_relative_distance_of_the_two_means() -> None:
    factors = [[pair(seed + 10 * place) for seed in range(3)] for place in range(2)]
    middles = [(torch.stack([a for a, _ in one]).mean(0), torch.stack([b for _, b in one]).mean(0)) for one in factors]
    of_means = torch.cat([product(one, 2.0).flatten() for one in middles])
    of_products = torch.cat([torch.stack([product(each, 2.0) for each in one]).mean(0).flatten() for one in factors])
    wanted = float((of_means - of_products).norm() / of_products.norm())
    assert relative_gap(factors, [2.0] * 3) == pytest.approx(wanted, rel=1e-6)


def test_equal_adapters_and_adapters_of_nothing_have_no_gap() -> None:
    assert relative_gap([[pair(1), pair(1)]], [2.0, 2.0]) == pytest.approx(0, abs=1e-7)
    down, up = pair(1)
    assert relative_gap([[(down, 0 * up), (down, 0 * up)]], [2.0, 2.0]) == 0


@pytest.mark.parametrize(("start", "space"), [(1, "factor"), (3, "delta")])
def test_factors_that_drifted_apart_are_merged_as_products_from_then_on(start: int, space: str) -> None:
    run, made = run_of(start), part(stored(1), space="auto")
    made.after_step(run, 1)
    assert [entry["space"] for entry in made.facts["merges"]] == [space]
    assert (made.facts["merges"][0]["gap"] > 0.1) == (space == "delta")
    again = part(stored(1), space="auto")
    again.load_state_dict(made.state_dict())
    assert again.facts == made.facts
    assert again.delta == (space == "delta")


def test_the_last_merges_of_a_long_run_are_remembered() -> None:
    run, made = run_of(3), part(stored(1), alpha=0)
    for step in range(1, 251):
        made.after_step(run, step)
    remembered = made.state_dict().values["log"]
    assert [entry["step"] for entry in remembered] == list(range(51, 251))
    assert made.facts["merges"] == remembered


def test_factors_that_drifted_apart_are_not_merged_even_once_before_that_is_known() -> None:
    run = run_of(1)
    before = adapters(run)
    drifted = part(stored(100), merge_every="step", space="auto", steps=5)
    drifted.after_step(run, 1)
    assert drifted.facts["space"] == "delta"
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapters(run).items())


def test_drifted_factors_that_were_merged_every_step_are_merged_every_epoch() -> None:
    run, made = run_of(3), part(stored(1), space="auto", merge_every="step", steps=2)
    for run.step in (1, 2):
        made.after_step(run, run.step)
    before = adapters(run)
    made.after_step(run, 3)
    assert made.delta
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapters(run).items())


# --- as released -------------------------------------------------------------------------------------------------


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Identity() for _ in range(12)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def test_the_released_rule_keeps_a_quarter_of_the_adapter_in_one_step() -> None:
    run = run_of(3)
    run.model = Blocks()
    zero = Predecessor(tensors={name: 0 * tensor for name, tensor in stored(1).tensors.items()}, scale=2.0)
    released, start = part(zero, kind=Released, alpha=0.1), adapters(run)
    released.begin(run)
    run.model(torch.zeros(1))
    released.after_step(run, 1)
    for name, tensor in adapters(run).items():
        torch.testing.assert_close(tensor, 0.9**13 * start[name])
