"""Gaussians of classes: what they are, how they are kept, and what a head learns from them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from strategies.errors import BadState
from strategies.inference.calibration import Domain, router_vectors
from strategies.inference.statistics import (
    Gaussian,
    Moments,
    Prototype,
    Statistics,
    align,
    covariance_of,
    factor_of,
    gather,
    read_statistics,
    write_statistics,
)
from strategies.settings.consolidation import AlignSettings


def samples(count: int, dimensions: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed)) * 2 + 5


@pytest.mark.parametrize("diagonal", [False, True])
def test_moments_in_pieces_are_those_of_the_whole(diagonal: bool) -> None:
    found, made = samples(50), Moments(3, diagonal=diagonal)
    for piece in torch.split(found, [1, 7, 0, 42]):
        made.add(piece)
    whole = torch.cov(found.double().T) + 1e-4 * torch.eye(3)
    gaussian = made.gaussian()
    torch.testing.assert_close(gaussian.mean, found.double().mean(0))
    torch.testing.assert_close(gaussian.covariance, whole.diagonal() if diagonal else whole)
    assert (gaussian.count, gaussian.covariance.dtype) == (50, torch.float64)


def test_a_covariance_of_few_samples_is_shrunk_to_its_mean_variance() -> None:
    few = samples(11).double()
    plain = torch.cov(few.T)
    wanted = 0.9 * plain + 0.1 * plain.trace() / 3 * torch.eye(3) + 1e-4 * torch.eye(3)
    made = Moments(3, diagonal=False)
    made.add(few)
    torch.testing.assert_close(made.gaussian().covariance, wanted)
    torch.testing.assert_close(covariance_of(made.scatter.diagonal(), 11), wanted.diagonal())


def test_one_sample_has_a_covariance_that_can_be_drawn_from() -> None:
    made = Moments(3, diagonal=False)
    made.add(samples(1))
    torch.testing.assert_close(factor_of(made.gaussian().covariance), 1e-2 * torch.eye(3).double())


def test_a_barely_indefinite_covariance_gets_jitter_and_any_other_is_refused() -> None:
    flat = torch.ones(4, 4).double() - 1e-9 * torch.eye(4)
    factor = factor_of(flat)
    torch.testing.assert_close(factor @ factor.T, flat, atol=1e-3, rtol=0)
    with pytest.raises(BadState, match="Cholesky"):
        factor_of(torch.diag(torch.tensor([1.0, -1.0]).double()))


def test_classes_are_gathered_apart() -> None:
    pieces = [(samples(6, seed=1), torch.tensor([0, 4, 0, 4, 4, 4])), (samples(2, seed=2), torch.tensor([0, 0]))]
    found = gather(pieces, diagonal=True)
    assert {place: made.count for place, made in found.items()} == {0: 4, 4: 4}
    torch.testing.assert_close(found[0].mean, torch.cat([pieces[0][0][[0, 2]], pieces[1][0]]).double().mean(0))


def test_statistics_come_back_as_they_were_written(tmp_path: Path) -> None:
    made = Moments(3, diagonal=False)
    made.add(samples(20))
    prototype = Prototype(mean=made.mean, count=20)
    write_statistics(tmp_path, Statistics(gaussians={"é|/": made.gaussian()}, prototypes={"é|/": prototype}))
    found = read_statistics(tmp_path)
    assert torch.equal(found.gaussians["é|/"].covariance, made.gaussian().covariance)
    assert torch.equal(found.prototypes["é|/"].mean, made.mean)
    assert (found.gaussians["é|/"].count, found.prototypes["é|/"].count) == (20, 20)


@pytest.mark.parametrize("name", ["statistics.json", "statistics.safetensors"])
def test_changed_statistics_are_refused(tmp_path: Path, name: str) -> None:
    write_statistics(tmp_path, Statistics(prototypes={"a": Prototype(mean=torch.ones(3), count=1)}))
    content = bytearray((tmp_path / name).read_bytes())
    content[-2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadState, match="statistics in"):
        read_statistics(tmp_path)


# --- alignment ---------------------------------------------------------------------------------------------------


def world(classes: int = 4, dimensions: int = 6) -> dict[int, Gaussian]:
    means = 3 * torch.randn(classes, dimensions, generator=torch.Generator().manual_seed(3)).double()
    spread = torch.eye(dimensions).double() + 0.3
    return {place: Gaussian(mean=means[place], covariance=spread, count=99) for place in range(classes)}


def accuracy(head: torch.nn.Linear, gaussians: dict[int, Gaussian]) -> float:
    right = 0
    for place, gaussian in gaussians.items():
        noise = torch.randn(100, len(gaussian.mean), generator=torch.Generator().manual_seed(place)).double()
        drawn = gaussian.mean + noise @ factor_of(gaussian.covariance).T
        right += int((head(drawn.float()).argmax(1) == place).sum())
    return right / (100 * len(gaussians))


def head_of(classes: int, dimensions: int = 6) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(dimensions, classes)


def test_alignment_teaches_a_head_all_classes_from_their_gaussians_alone() -> None:
    gaussians, head = world(), head_of(4)
    before = accuracy(head, gaussians)
    losses = align(head, gaussians, AlignSettings(), batch=8, seed=1)
    assert before < 0.6
    assert accuracy(head, gaussians) > 0.95
    assert len(losses) == 30
    assert losses[-1] < losses[0] / 2


def test_alignment_takes_as_many_steps_an_epoch_as_there_are_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    plain = torch.nn.functional.cross_entropy

    def counted(logits: Tensor, to: Tensor) -> Tensor:
        sizes.append(len(logits))
        return plain(logits, to)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", counted)
    align(head_of(4), world(), AlignSettings(epochs=2), batch=8, seed=1)
    assert sizes == [40] * 8


def test_alignment_is_the_same_every_time_and_touches_no_other_rows() -> None:
    gaussians = {place: gaussian for place, gaussian in world().items() if place != 2}
    heads = [head_of(4), head_of(4)]
    for head in heads:
        align(head, gaussians, AlignSettings(epochs=2, weight_decay=0), batch=8, seed=1)
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert torch.equal(heads[0].weight[2], head_of(4).weight[2])
    assert not torch.equal(heads[0].weight[0], head_of(4).weight[0])


# --- domains -----------------------------------------------------------------------------------------------------


def domain(at: float, seed: int) -> Domain:
    made = Moments(3, diagonal=False)
    made.add(samples(40, seed=seed) + at)
    held = torch.stack([(samples(40, seed=seed + 1) + at).double() * stretch for stretch in (2, 1)])
    gains = torch.linspace(0.1, 0.3, 40).double()
    return Domain(mean=made.mean, scatter=made.scatter, count=torch.tensor(40), held=held, gains=gains)


def test_the_router_pools_covariances_and_keeps_a_percentile_of_each_domain() -> None:
    domains = [domain(0, 1), domain(9, 5)]
    vectors = router_vectors(domains, percentile=90)
    pooled = (domains[0].scatter + domains[1].scatter) / 78 + 1e-4 * torch.eye(3)
    torch.testing.assert_close(vectors["factor"] @ vectors["factor"].T, pooled)
    for place, one in enumerate(domains):
        for held, limit in zip(one.held, vectors["distances"][place], strict=True):
            away = held - one.mean
            distances = (away @ pooled.inverse() * away).sum(1).sqrt()
            assert float((distances <= limit).double().mean()) == pytest.approx(0.9, abs=0.01)
    torch.testing.assert_close(vectors["gains"][0], torch.stack([domains[0].gains.mean(), domains[0].gains.std()]))
