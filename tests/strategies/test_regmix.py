"""RegMix: the mixtures of the tiny runs, and a fit that finds a known optimum."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import kstest
from sklearn.neighbors import KNeighborsRegressor

from strategies.contract.regmix import FitSettings, ProxyRun
from strategies.errors import BadPlan, Refused
from strategies.fitting import regmix as fitting
from strategies.mixing import regmix
from strategies.settings import Json

PRIOR = {"web": 0.7, "code": 0.2, "maths": 0.08, "news": 0.02}
Mixture = dict[str, float]
FEW = 64


@pytest.fixture(scope="module")
def mixtures() -> list[Mixture]:
    return regmix.candidates(PRIOR, FEW, seed="tests")


def table(mixtures: list[Mixture]) -> regmix.Table:
    return np.array([[mixture[name] for name in PRIOR] for mixture in mixtures])


def test_mixtures_sum_to_one_below_the_limit_and_without_traces(mixtures: list[Mixture]) -> None:
    found = table(mixtures)
    assert found.shape == (64, 4)
    assert np.allclose(found.sum(1), 1)
    assert (found[:, 3] <= 15 * 0.02 * 1.001).all()
    assert ((found == 0) | (found > 1.9e-4)).all()
    assert (found == 0).any()


def test_no_two_mixtures_are_near() -> None:
    found = regmix._distinct(regmix._oversampled(PRIOR, 200, 0.05, regmix.generator("coarse")))
    assert len(found) > 200
    apart = np.abs(found[:, None] - found[None]).sum(2) + np.eye(len(found))
    assert apart.min() > 1e-5


def test_the_same_seed_draws_the_same_mixtures(mixtures: list[Mixture]) -> None:
    assert regmix.candidates(PRIOR, FEW, seed="tests") == mixtures
    assert regmix.candidates(PRIOR, FEW, seed="others") != mixtures


def test_draws_centre_on_the_tempered_prior() -> None:
    prior, random = np.array(list(PRIOR.values())), regmix.generator("mean")
    drawn = np.concatenate([regmix._block(prior, random) for _ in range(3)])
    wanted = np.sqrt(list(PRIOR.values()))
    assert drawn.mean(0) == pytest.approx(wanted / wanted.sum(), abs=0.01)


def test_simulated_mixtures_centre_on_the_plain_prior() -> None:
    found = regmix.simulated(PRIOR, 20_000, regmix.generator("tests"))
    assert found.mean(0) == pytest.approx(list(PRIOR.values()), abs=0.01)
    assert found.sum(1) == pytest.approx(1)


def test_one_weight_of_a_flat_dirichlet_is_uniform() -> None:
    found = regmix._dirichlet(np.ones((5000, 2)), regmix.generator("flat"))
    assert kstest(found[:, 0], "uniform").pvalue > 0.01


@pytest.mark.parametrize(("share", "runs"), [(5e-4, 64), (3e-4, 24), (3e-4, 64), (1e-4, 24)])
def test_a_small_domain_is_tried_on_a_finer_grid(share: float, runs: int) -> None:
    prior = {"large": 1 - share, "small": share}
    found = [one["small"] for one in regmix.candidates(prior, runs, seed="small")]
    assert len(set(found)) == runs
    assert 0 < max(found) <= 15 * share * 1.02


def test_a_domain_too_small_for_any_grid_is_refused_by_name_with_what_to_do() -> None:
    prior = {"large": 1 - 1e-5, "small": 1e-5}
    with pytest.raises(BadPlan, match=r"domain small has only 1e-05 of all tokens; give it more data, or leave regmix"):
        regmix.candidates(prior, 24, seed="small")
    with pytest.raises(BadPlan, match=r"fewer than 64 .*; ask for fewer runs \(24 at least\), give it more data, or"):
        regmix.candidates(prior, 64, seed="small")


def test_mixtures_that_all_go_beyond_their_limit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(regmix, "_MAX_BLOCKS", 3)
    monkeypatch.setattr(regmix, "MOST_OVER_PRIOR", 1.0)
    with pytest.raises(BadPlan, match="fewer than 5 different mixtures within its limits"):
        regmix.candidates(dict.fromkeys("abcdef", 1.0), 5, seed="tests")


def runs(mixtures: list[Mixture], noise: float = 0.0) -> list[ProxyRun]:
    """Old loss falls with web, new loss is least at a fifth of code; both depend on nothing else."""
    random = np.random.default_rng(3).normal(size=len(mixtures)) * noise
    return [
        ProxyRun(weights=one, losses={"anchor": 3 - 0.2 * one["web"] + n, "batch": 2 + 8 * (one["code"] - 0.4) ** 2})
        for one, n in zip(mixtures, random.tolist(), strict=True)
    ]


def settings(**changes: Any) -> FitSettings:
    plain: Json = {
        "prior": PRIOR,
        "tokens": {name: 1e6 * share for name, share in PRIOR.items()},
        "budget": 1e6,
        "old": ("anchor",),
        "new": ("batch",),
        "simulated": 20_000,
        "rounds": 300,
        "learning_rate": 0.03,
    }
    return FitSettings(**{**plain, **changes})


def test_the_target_weighs_old_against_new(mixtures: list[Mixture]) -> None:
    one = ProxyRun(weights={}, losses={"a": 1.0, "b": 3.0, "c": 10.0})
    assert regmix.targets([one], settings(old=("a", "b"), new=("c",), old_weight=0.25)) == [0.25 * 2 + 0.75 * 10]
    assert regmix.targets([one], settings(old=(), new=("c",), old_weight=0)) == [10]


def test_the_fit_finds_the_mixture_that_a_curved_loss_asks_for(mixtures: list[Mixture]) -> None:
    found = fitting.fit(runs(mixtures), settings())
    assert found.chosen == "boosted"
    assert found.regressions["boosted"].spearman > 0.9 > found.regressions["linear"].spearman
    assert float(found.mixture["code"]) == pytest.approx(0.4, abs=0.1)


def test_a_straight_loss_is_left_to_the_line(mixtures: list[Mixture]) -> None:
    found = fitting.fit(runs(mixtures), settings(old_weight=1, new=()))
    assert found.chosen == "linear"
    # Several mixtures hold no web at all: their losses tie, which no prediction's last digits do.
    assert found.regressions["linear"].spearman > 0.999
    assert float(found.mixture["web"]) > 0.95


def test_boosting_stops_early(mixtures: list[Mixture]) -> None:
    found = fitting.fit(runs(mixtures, noise=0.5), settings(old_weight=1, new=()))
    rounds = found.regressions["boosted"].rounds
    assert rounds is not None
    assert rounds < 300
    assert sorted(found.folds.count(fold) for fold in range(5)) == [12, 13, 13, 13, 13]


def test_no_fit_has_seen_the_run_that_it_predicts(mixtures: list[Mixture], monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(5).normal(size=len(mixtures)).tolist()
    chance = [ProxyRun(weights=one, losses={"anchor": n}) for one, n in zip(mixtures, noise, strict=True)]
    remembering = lambda features, losses, _validation, _settings: KNeighborsRegressor(1).fit(features, losses)  # noqa: E731
    monkeypatch.setitem(fitting.MAKERS, "boosted", remembering)
    found = fitting.fit(chance, settings(old_weight=1, new=()))
    assert found.regressions["boosted"].spearman < 0.5, "one that remembers what it saw would rank it all"


def test_a_curve_over_two_domains_is_not_left_to_a_line_that_can_only_choose_a_corner() -> None:
    prior = {"old": 0.5, "new": 0.5}
    drawn = regmix.candidates(prior, 64, seed="two")
    noise = np.random.default_rng(7).normal(size=64) * 0.05
    made = [
        ProxyRun(weights=one, losses={"old": 6 + 2 * (one["old"] - 0.3) ** 2 + n, "new": 6.0})
        for one, n in zip(drawn, noise.tolist(), strict=True)
    ]
    found = fitting.fit(made, settings(prior=prior, tokens={"old": 1e6, "new": 1e6}, old=("old",), new=("new",)))
    assert found.chosen == "boosted"
    assert float(found.mixture["old"]) == pytest.approx(0.3, abs=0.12)


def test_no_domain_is_asked_for_more_often_than_its_epochs_allow(mixtures: list[Mixture]) -> None:
    found = fitting.fit(runs(mixtures), settings(epochs_max=1.5))
    assert found.uncapped["code"] > 0.3
    assert float(found.mixture["code"]) == pytest.approx(0.3, abs=1e-5)
    assert sum(map(float, found.mixture.values())) == pytest.approx(1, abs=1e-12)


def test_the_mean_of_the_best_is_taken_and_not_the_best_one(mixtures: list[Mixture]) -> None:
    one, many = (fitting.fit(runs(mixtures), settings(averaged=count)) for count in (1, 128))
    assert one.uncapped != many.uncapped
    assert min(many.uncapped.values()) > 0


def test_the_record_holds_everything_by_value(mixtures: list[Mixture]) -> None:
    found = fitting.fit(runs(mixtures), settings())
    assert type(found).model_validate_json(found.model_dump_json()) == found
    assert found.targets[found.best_run] == min(found.targets)
    assert fitting.fit(runs(mixtures), settings()) == found


def test_runs_that_teach_nothing_are_refused(mixtures: list[Mixture]) -> None:
    with pytest.raises(Refused, match="too few"):
        fitting.fit(runs(mixtures[:20]), settings())
    flat = [one.model_copy(update={"losses": {"anchor": 1.0, "batch": 1.0}}) for one in runs(mixtures)]
    with pytest.raises(Refused, match="all equal"):
        fitting.fit(flat, settings())
    with pytest.raises(BadPlan, match="no loss on eval set wiki"):
        fitting.fit(runs(mixtures), settings(old=("wiki",)))
    with pytest.raises(BadPlan, match="no eval set on one side"):
        fitting.fit(runs(mixtures), settings(old=()))
    others = {name: share for name, share in PRIOR.items() if name != "news"}
    with pytest.raises(BadPlan, match="a tiny run has domain news"):
        fitting.fit(runs(mixtures), settings(prior=others, tokens=others))
    with pytest.raises(ValueError, match="same domains"):
        settings(tokens={"web": 1.0})
