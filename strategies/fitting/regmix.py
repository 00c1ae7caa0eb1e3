"""RegMix's regressions, and the mixture that they choose (Liu et al. 2024; METHODS.md section 4.2, steps 7 to 9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from scipy.stats import rankdata
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from strategies.errors import Refused
from strategies.mixing import regmix
from strategies.mixing.exact import decimals, rounded
from strategies.mixing.order import permuted
from strategies.mixing.regmix import FitSettings, ProxyRun, RegMixFit, Regression, Table

Part = Literal["train", "validation", "test"]


class _Model(Protocol):
    def predict(self, features: Table) -> Table: ...


def fit(runs: Sequence[ProxyRun], settings: FitSettings) -> RegMixFit:
    """Fit both regressions, take the one that ranks the test runs better, and average its best simulated mixtures.

    Boosting stops early on a validation part; the test part only compares the two. Of equals the linear one is taken.
    """
    if len(runs) < regmix.LEAST_RUNS:
        raise Refused(f"{len(runs)} tiny runs are too few to fit; make at least {regmix.LEAST_RUNS}, better 64")
    domains = tuple(sorted(settings.prior))
    features, losses = regmix.features(runs, domains), np.array(regmix.targets(runs, settings))
    if not np.isfinite(losses).all() or np.ptp(losses) == 0:
        raise Refused("the tiny runs' losses are not finite or all equal; look at the runs")
    parts = _parts(len(runs), settings.seed)
    models = {"linear": _linear(features, losses, parts), "boosted": _boosted(features, losses, parts, settings)}
    test = parts == "test"
    scores = {name: _spearman(model.predict(features[test]), losses[test]) for name, model in models.items()}
    chosen = max(models, key=lambda name: (scores[name], name == "linear"))
    uncapped = _best(models[chosen], domains, settings)
    exact = rounded(regmix.capped(uncapped, settings), max(uncapped, key=uncapped.__getitem__))
    predicted = models[chosen].predict(np.array([[float(exact[name]) for name in domains]]))
    return RegMixFit(
        domains=domains,
        settings=settings,
        runs=tuple(runs),
        targets=tuple(losses.tolist()),
        parts=tuple(parts.tolist()),
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


def _parts(count: int, seed: int) -> Any:
    """An eighth of the runs each for validation and test, by hash."""
    eighth = count // 8
    parts = np.full(count, "train", dtype="<U10")
    order = permuted(np.arange(count, dtype=np.int64), seed, "regmix parts")
    parts[order[:eighth]] = "validation"
    parts[order[eighth : 2 * eighth]] = "test"
    return parts


def _linear(features: Table, losses: Table, parts: Any) -> _Model:
    model: _Model = LinearRegression().fit(features[parts == "train"], losses[parts == "train"])
    return model


class _Boosted:
    """Trees on losses of mean 0 and spread 1, so that when boosting stops does not depend on the losses' scale."""

    def __init__(self, trees: Any, mean: float, spread: float) -> None:
        self._trees, self._mean, self._spread = trees, mean, spread
        self.rounds = int(trees.n_iter_)

    def predict(self, features: Table) -> Table:
        found: Table = self._trees.predict(features) * self._spread + self._mean
        return found


def _boosted(features: Table, losses: Table, parts: Any, settings: FitSettings) -> _Boosted:
    train, validation = parts == "train", parts == "validation"
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


def _spearman(predicted: Table, found: Table) -> float:
    """Rank correlation; -1 where nothing was told apart."""
    if np.ptp(predicted) == 0 or np.ptp(found) == 0:
        return -1.0
    return float(np.corrcoef(rankdata(predicted), rankdata(found))[0, 1])


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
