"""The proxy environment: shared start, exact shares, the same numbers again."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from strategies.agent.comparison import Comparison, baselines, compare
from strategies.agent.environment import DomainTokens, ProxyEnvironment
from strategies.agent.rollout import constant, rollout
from strategies.agent.rows import OTHER, RowDrawer, compact, frequent, similarities, token_counts, windows
from strategies.errors import BadPlan, Refused
from strategies.settings.agent import ProxySettings, parameters
from tests.training.agent_worlds import TOKENS, other_world, world

SETTINGS = ProxySettings(
    vocabulary=16, hidden=8, heads=2, layers=1, length=8, batch=4, step_tokens=64, eval_tokens=64, steps=3,
    initial_steps=2, learning_rate=1e-2,
)  # fmt: skip


def counting(start: int, stride: int, count: int) -> np.ndarray:
    """Token ids that a model can learn to foresee."""
    return (start + stride * np.arange(count)) % 7 + 10 * (start + 1)


def data() -> list[DomainTokens]:
    return [
        DomainTokens(name="ones", new=False, train=counting(0, 1, 400), validation=counting(0, 1, 80)),
        DomainTokens(name="threes", new=True, train=counting(1, 3, 200), validation=counting(1, 3, 80)),
    ]


@pytest.fixture(scope="module")
def proxy() -> ProxyEnvironment:
    return ProxyEnvironment("tiny", data(), SETTINGS)


def test_a_run_is_the_same_again_whatever_was_run_between(proxy: ProxyEnvironment) -> None:
    first = rollout(proxy, constant([0.5, 0.5]), seed=1)
    other = rollout(proxy, constant([0.0, 1.0]), seed=2)
    assert rollout(proxy, constant([0.5, 0.5]), seed=1) == first
    assert (other.start, first.complete) == (first.start, True)


def test_training_on_a_domain_lowers_its_loss_more(proxy: ProxyEnvironment) -> None:
    ones, threes = (rollout(proxy, constant(mixture), seed=1).steps[-1].losses for mixture in ([1, 0], [0, 1]))
    assert ones[0] < threes[0]
    assert threes[1] < ones[1]


def test_another_environment_starts_from_the_same_weights(proxy: ProxyEnvironment) -> None:
    other = ProxyEnvironment("tiny", data(), SETTINGS, start=proxy.initial)
    assert other.reset(1) == proxy.reset(1)
    assert other.header(1) == proxy.header(1)


def test_a_run_says_where_it_comes_from(proxy: ProxyEnvironment) -> None:
    header = proxy.header(5)
    assert [domain.prior for domain in header.domains] == pytest.approx([2 / 3, 1 / 3])
    assert header.provenance.seeds == {"data": 5, "start": 1234}
    assert header.provenance.settings == json.loads(SETTINGS.model_dump_json())
    assert set(header.provenance.data) == {"ones", "threes"}
    assert {"torch", "transformers", "python"} <= set(header.provenance.versions)


def test_every_run_has_the_whole_schedule(proxy: ProxyEnvironment) -> None:
    for seed in (1, 2):
        proxy.reset(seed)
        rates = []
        for _ in range(3):
            proxy.step([0.5, 0.5])
            rates.append(proxy._optimizer.param_groups[0]["lr"])
        # Two updates a step: a warm-up of one, then a cosine over five that ends at a tenth.
        assert rates == pytest.approx([1e-3 + 9e-3 * (1 + math.cos(math.pi * at / 5)) / 2 for at in (1, 3, 5)])


def test_the_tokens_of_a_step_are_counted(proxy: ProxyEnvironment) -> None:
    before = proxy.trained_tokens
    run = rollout(proxy, constant([0.5, 0.5]), seed=1)
    assert [done.tokens for done in run.steps] == [64] * 3
    assert proxy.trained_tokens - before == 3 * 64
    assert proxy.tokens_per_s > 0


def test_a_proxy_that_is_too_large_is_refused() -> None:
    with pytest.raises(ValidationError, match="5245440 parameters beside its embeddings, at most 300000"):
        ProxySettings(hidden=512)
    larger = ProxyEnvironment("larger", data(), ProxySettings(hidden=256, max_parameters=5_000_000, initial_steps=0))
    assert larger.header(1).provenance.settings["hidden"] == 256


@pytest.mark.parametrize(("hidden", "layers"), [(8, 1), (64, 2), (96, 3)])
def test_the_size_that_settings_tell_is_that_of_the_model(hidden: int, layers: int) -> None:
    settings = ProxySettings(hidden=hidden, layers=layers, initial_steps=0, max_parameters=1_000_000)
    proxy = ProxyEnvironment("tiny", data(), settings)
    assert sum(one.numel() for one in proxy.initial.values()) == parameters(hidden, layers) + 2048 * hidden


def test_the_process_keeps_its_random_numbers() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    rollout(ProxyEnvironment("tiny", data(), SETTINGS), constant([0.5, 0.5]), seed=1)
    assert torch.equal(torch.rand(2), wanted)


def test_what_rounding_owes_a_domain_is_carried_over() -> None:
    drawer = RowDrawer([100, 100, 100], "x")
    counts: Counter[int] = Counter()
    for _ in range(50):
        counts.update(domain for domain, _ in drawer.draw([0.55, 0.4, 0.05], 4))
    assert [counts[domain] for domain in range(3)] == [110, 80, 10]


def test_a_row_comes_again_only_after_all_others() -> None:
    drawer = RowDrawer([5], "x")
    rows = [row for _ in range(4) for _, row in drawer.draw([1.0], 5)]
    epochs = [rows[at : at + 5] for at in range(0, 20, 5)]
    assert [sorted(epoch) for epoch in epochs] == [[0, 1, 2, 3, 4]] * 4
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_rare_tokens_share_an_id() -> None:
    ids = np.array([9, 9, 9, 4, 4, 7])
    kept = frequent([ids], 3)
    assert kept.tolist() == [9, 4]
    assert compact(np.array([4, 7, 9, 100]), kept).tolist() == [2, OTHER, 1, OTHER]


def test_domains_like_the_new_one_are_similar_to_it() -> None:
    new, like, unlike = np.array([1, 2, 2, 3]), np.array([2, 1, 2, 2]), np.array([5, 5, 4, 1])
    near = similarities([token_counts(one) for one in (new, like, unlike)], [True, False, False], 8)
    assert near[0] == pytest.approx(1)
    assert near[0] > near[1] > near[2] > 0


def test_a_domain_of_less_than_a_row_is_refused() -> None:
    with pytest.raises(Refused, match="fewer than a row"):
        windows(np.arange(5), 8, "tiny")


def test_the_table_has_every_domain_of_every_policy_and_seed() -> None:
    place = world(total=4)
    table = compare(place, baselines(place.domains, {"regmix": (0.5, 0.0, 0.5, 0.0)}), seeds=[1, 2])
    assert len(table.outcomes) == 2 * 6
    assert {one.tokens for one in table.outcomes} == {4 * TOKENS}
    one = next(one for one in table.outcomes if one.policy == "regmix")
    assert set(one.losses) == {"old", "stale", "new", "noise"}
    assert one.new_loss == pytest.approx((one.losses["new"] + one.losses["noise"]) / 2)
    assert one.mixture == pytest.approx({"old": 0.5, "stale": 0.0, "new": 0.5, "noise": 0.0})
    assert Comparison.model_validate_json(table.model_dump_json()) == table


def test_the_summary_ranks_by_what_losses_fell() -> None:
    place = world(total=4)
    rows = compare(place, baselines(place.domains, {"useless": (0, 1, 0, 0)}), seeds=[1, 2]).summaries()
    assert rows[-1].policy == "useless"
    assert [row.fall for row in rows] == sorted((row.fall for row in rows), reverse=True)
    assert {row.seeds for row in rows} == {2}


def test_a_comparison_runs_on_domains_of_another_space() -> None:
    place = other_world(total=3)
    table = compare(place, {"uniform": lambda history: [1 / len(history.domains)] * len(history.domains)}, seeds=[1])
    assert set(table.outcomes[0].losses) == {"a", "b", "c"}


def test_runs_of_unequal_tokens_are_not_compared() -> None:
    place = world(total=2)

    def cheating(history: object) -> tuple[float, ...]:
        place.total += 1
        return (0.25,) * 4

    with pytest.raises(BadPlan, match="different numbers of tokens"):
        compare(place, {"fair": constant([0.25] * 4), "cheating": cheating, "late": constant([0.25] * 4)}, seeds=[1])
