"""RegMix's regressions, and the mixture that they choose (Liu et al. 2024; METHODS 4.2, steps 7 to 9)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from scipy.stats import spearmanr
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from strategies.contract.regmix import LEAST_RUNS, FitSettings, ProxyRun, RegMixFit, Regression
from strategies.errors import Refused
from strategies.mixing import regmix
from strategies.mixing.exact import decimals, rounded
from strategies.mixing.order import permuted
from strategies.mixing.regmix import Table

FOLDS = 5


class _Model(Protocol):
    def predict(self, features: Table) -> Table: ...


_Maker = Callable[[Table, Table, Any, FitSettings], _Model]
"""Features, losses, which of the rows are to stop early on, settings."""


def fit(runs: Sequence[ProxyRun], settings: FitSettings) -> RegMixFit:
    """Fit both regressions, take the one that ranks unseen runs better, and average its best simulated mixtures.

    Every fold of the runs is predicted by fits on the others, of which boosting takes one to stop early: among few runs
    a single fold would leave the choice to chance. Of equals the linear one is taken.
    """
    if len(runs) < LEAST_RUNS:
        raise Refused(f"{len(runs)} tiny runs are too few to fit; make at least {LEAST_RUNS}, better 64")
    domains = tuple(sorted(settings.prior))
    features, losses = regmix.features(runs, domains), np.array(regmix.targets(runs, settings))
    if not np.isfinite(losses).all() or np.ptp(losses) == 0:
        raise Refused("the tiny runs' losses are not finite or all equal; look at the runs")
    folds = _folds(len(runs), settings.seed)
    scores = {
        name: _spearman(_unseen(make, features, losses, folds, settings), losses) for name, make in MAKERS.items()
    }
    chosen = max(MAKERS, key=lambda name: (scores[name], name == "linear"))
    models = {name: make(features, losses, folds == 0, settings) for name, make in MAKERS.items()}
    uncapped = _best(models[chosen], domains, settings)
    exact = rounded(regmix.capped(uncapped, settings), max(uncapped, key=uncapped.__getitem__))
    predicted = models[chosen].predict(np.array([[float(exact[name]) for name in domains]]))
    return RegMixFit(
        domains=domains,
        settings=settings,
        runs=tuple(runs),
        targets=tuple(losses.tolist()),
        folds=tuple(folds.tolist()),
        regressions={
            name: Regression(spearman=scores[name], rounds=getattr(model, "rounds", None))
            for name, model in models.items()
        },
        chosen=chosen,
        uncapped=uncapped,
        mixture={name: decimals(weight) for name, weight in exact.items()},
        predicted=float(predicted[0]),
        best_run=int(losses.argmin()),
    )


def _folds(count: int, seed: int) -> Any:
    """The fold of each run, by hash; all but equally many runs in each."""
    folds = np.empty(count, dtype=np.int64)
    folds[permuted(np.arange(count, dtype=np.int64), seed, "regmix folds")] = np.arange(count) % FOLDS
    return folds


def _unseen(make: _Maker, features: Table, losses: Table, folds: Any, settings: FitSettings) -> Table:
    """Every run's loss as fits without its fold predict it."""
    found = np.empty(len(losses))
    for fold in range(FOLDS):
        held, rest = folds == fold, folds != fold
        model = make(features[rest], losses[rest], folds[rest] == (fold + 1) % FOLDS, settings)
        found[held] = model.predict(features[held])
    return found


def _linear(features: Table, losses: Table, validation: Any, settings: FitSettings) -> _Model:
    model: _Model = LinearRegression().fit(features, losses)
    return model


class _Boosted:
    """Trees on losses of mean 0 and spread 1, so that when boosting stops does not depend on the losses' scale."""

    def __init__(self, trees: Any, mean: float, spread: float) -> None:
        self._trees, self._mean, self._spread = trees, mean, spread
        self.rounds = int(trees.n_iter_)

    def predict(self, features: Table) -> Table:
        found: Table = self._trees.predict(features) * self._spread + self._mean
        return found


def _boosted(features: Table, losses: Table, validation: Any, settings: FitSettings) -> _Boosted:
    train = ~validation
    mean, spread = float(losses[train].mean()), float(losses[train].std()) or 1.0
    scaled = (losses - mean) / spread
    trees = HistGradientBoostingRegressor(
        learning_rate=settings.learning_rate,
        max_iter=settings.rounds,
        # 20, as in the paper's library, would leave a hundred runs with hardly a split.
        min_samples_leaf=max(2, min(20, int(train.sum()) // 20)),
        early_stopping=True,
        n_iter_no_change=settings.patience,
        random_state=settings.seed,
    )
    trees.fit(features[train], scaled[train], X_val=features[validation], y_val=scaled[validation])
    return _Boosted(trees, mean, spread)


MAKERS: dict[str, _Maker] = {"linear": _linear, "boosted": _boosted}


def _spearman(predicted: Table, found: Table) -> float:
    """Rank correlation; -1 where nothing was told apart."""
    if np.ptp(predicted) == 0 or np.ptp(found) == 0:
        return -1.0
    return float(spearmanr(predicted, found).statistic)


def _best(model: _Model, domains: Sequence[str], settings: FitSettings) -> dict[str, float]:
    """Mean of the simulated mixtures with the lowest predicted losses.

    The mean rather than the best one, which may be an artefact of the regression.
    """
    prior = {name: settings.prior[name] for name in domains}
    random = regmix.generator(f"regmix simulation {settings.seed}")
    mixtures = regmix.simulated(prior, settings.simulated, random)
    order = np.argsort(model.predict(mixtures), kind="stable")
    mean = mixtures[order[: settings.averaged]].mean(0)
    return dict(zip(domains, (mean / mean.sum()).tolist(), strict=True))
