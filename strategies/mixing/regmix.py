"""RegMix: mixtures for many tiny runs, and what was learnt from them (Liu et al. 2024, arXiv 2407.01492; METHODS 4.2).

The regression itself is heavy: :mod:`strategies.fitting.regmix`. Only the rank of mixtures carries over to a larger
model; predicted losses are of the tiny one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from strategies.errors import BadPlan
from strategies.mixing.simplex import Weights, caps, normalised, project
from strategies.settings import Closed

Table = NDArray[np.float64]
LEAST_RUNS = 24
"""Fewer leave nothing to choose the regression by."""
_BLOCK = 8192
_MAX_BLOCKS = 4096


class MixtureSettings(Closed):
    """How the mixtures of the tiny runs are drawn; the defaults are the paper's."""

    runs: int = Field(512, ge=1)
    temperature: float = Field(0.5, gt=0, le=1)
    """Power of the prior that the draws centre on: below 1, small domains come up more often."""
    strengths: int = Field(15, ge=1)
    least_strength: float = Field(0.1, gt=0)
    greatest_strength: float = Field(5.0, gt=0)
    most_over_prior: float = Field(15.0, ge=1)
    """A mixture with a weight above this many times the prior is rejected."""
    grid: float = Field(2e-4, gt=0, lt=0.1)
    """Weights below it become 0, the others its multiples."""
    oversample: int = Field(100, ge=1)
    near: float = Field(1e-5, ge=0)
    """Mixtures that are no further apart (sum of absolutes) are one."""


class ProxyRun(Closed):
    """One tiny run: its mixture, and the losses it ended with, by eval set."""

    weights: dict[str, float]
    losses: dict[str, float]


class FitSettings(Closed):
    """What the fit aims at and keeps to; the defaults are the paper's."""

    prior: dict[str, float]
    tokens: dict[str, float]
    """Tokens that each domain has."""
    budget: float = Field(gt=0)
    """Tokens that the large run draws."""
    epochs_max: float | None = Field(None, gt=0)
    old: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    old_weight: float = Field(0.5, ge=0, le=1)
    """w of ``w * L_old + (1 - w) * L_new``; ``old`` and ``new`` are the names of the eval sets."""
    seed: int = 42
    rounds: int = Field(1000, ge=1)
    learning_rate: float = Field(0.01, gt=0)
    patience: int = Field(3, ge=1)
    simulated: int = Field(100_000, ge=1)
    averaged: int = Field(128, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> FitSettings:
        if set(self.tokens) != set(self.prior):
            raise ValueError("prior and tokens must name the same domains")
        return self


class Regression(Closed):
    """How well one kind of regression ranks mixtures it was not fitted on (Spearman), and its size."""

    spearman: float
    rounds: int | None = None


class RegMixFit(Closed):
    """What was fitted and what it chose, by value."""

    domains: tuple[str, ...]
    settings: FitSettings
    runs: tuple[ProxyRun, ...]
    targets: tuple[float, ...]
    """The target loss of each run."""
    folds: tuple[int, ...]
    """The fold of each run. What is used stops early on fold 0; regressions are compared by what each fold is predicted
    from the others."""
    regressions: dict[str, Regression]
    chosen: str
    uncapped: dict[str, float]
    """Mean of the best simulated mixtures, before the cap by epochs."""
    mixture: dict[str, str]
    """The result, as decimal strings that sum to 1."""
    predicted: float
    best_run: int
    """Place of the run with the lowest target loss, for comparison."""


def tempered(prior: Weights, temperature: float) -> dict[str, float]:
    """The prior to a power, normalised."""
    return normalised({name: weight**temperature for name, weight in normalised(prior).items()})


def candidates(prior: Weights, settings: MixtureSettings, *, seed: str) -> list[dict[str, float]]:
    """``settings.runs`` different mixtures around the tempered prior (steps 1 to 5).

    Each picks one of the log-spaced strengths c and is drawn from Dirichlet(c * tempered prior). They are to be kept by
    value: nothing promises that another version of numpy would draw them again.
    """
    plain = normalised(prior)
    names = list(plain)
    random = generator(seed)
    found = _oversampled(np.array(list(plain.values())), settings, random)
    distinct = _distinct(found, settings.near)
    if len(distinct) < settings.runs:
        raise BadPlan(f"only {len(distinct)} mixtures differ, not {settings.runs}; ask for fewer runs or a finer grid")
    kept = distinct[np.sort(random.permutation(len(distinct))[: settings.runs])]
    return [dict(zip(names, row, strict=True)) for row in random.permutation(kept).tolist()]


def generator(seed: str) -> np.random.Generator:
    """A stream of random numbers under a spelled-out seed."""
    digest = hashlib.sha256(seed.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def targets(runs: Sequence[ProxyRun], settings: FitSettings) -> list[float]:
    """``w * L_old + (1 - w) * L_new`` of each run, each side the mean over its eval sets."""
    sides = [(settings.old_weight, settings.old), (1 - settings.old_weight, settings.new)]
    wanted = [(share, sets) for share, sets in sides if share]
    if not all(sets for _, sets in wanted):
        raise BadPlan("the target has no eval set on one side; name one, or set old_weight to 0 or 1")
    missing = sorted({name for _, sets in wanted for name in sets for run in runs if name not in run.losses})
    if missing:
        raise BadPlan(f"a tiny run has no loss on eval set {missing[0]}; leave the set or the run out")
    return [sum(share * sum(run.losses[name] for name in sets) / len(sets) for share, sets in wanted) for run in runs]


def _oversampled(prior: Table, settings: MixtureSettings, random: np.random.Generator) -> Table:
    wanted = settings.runs * settings.oversample
    centre = prior**settings.temperature / (prior**settings.temperature).sum()
    strengths = np.geomspace(settings.least_strength, settings.greatest_strength, settings.strengths)
    most = np.minimum(settings.most_over_prior * prior, 1.0)
    found: list[Table] = []
    count = 0
    for _ in range(_MAX_BLOCKS):
        drawn = _dirichlet(strengths[random.integers(len(strengths), size=_BLOCK)][:, None] * centre, random)
        kept = _gridded(drawn[(drawn <= most).all(1)], settings.grid)
        found.append(kept)
        count += len(kept)
        if count >= wanted:
            return np.concatenate(found)[:wanted]
    raise BadPlan("nearly every mixture goes beyond the prior's limit; raise most_over_prior or merge small domains")


def _dirichlet(concentrations: Table, random: np.random.Generator) -> Table:
    """One draw a row. Gammas of tiny shapes underflow, so that they are drawn one shape higher and scaled down."""
    shapes = np.maximum(concentrations, 1e-12)
    logs = np.log(random.standard_gamma(shapes + 1)) + np.log1p(-random.random(shapes.shape)) / shapes
    weights = np.exp(logs - logs.max(1, keepdims=True))
    found: Table = weights / weights.sum(1, keepdims=True)
    return found


def _gridded(weights: Table, grid: float) -> Table:
    rounded = np.where(weights < grid, 0.0, np.round(weights / grid) * grid)
    found: Table = rounded / rounded.sum(1, keepdims=True)
    return found


def _distinct(rows: Table, near: float) -> Table:
    """Rows in lexicographic order without those close to the one before.

    Rows on one grid are equal or a grid step apart, so that neighbours in this order are the only near ones.
    """
    ordered = rows[np.lexsort(np.round(rows, 7).T[::-1])]
    far = np.abs(np.diff(ordered, axis=0)).sum(1) > near
    return ordered[np.concatenate([[True], far])] if len(ordered) else ordered


def simulated(prior: Weights, count: int, random: np.random.Generator) -> Table:
    """``count`` mixtures from Dirichlet(prior): the plain prior this time, not the tempered one (step 8)."""
    shapes = np.array(list(normalised(prior).values()))
    return _dirichlet(np.broadcast_to(shapes, (count, len(shapes))), random)


def features(runs: Sequence[ProxyRun], domains: Sequence[str]) -> Table:
    """Weights of the runs, (runs, domains)."""
    strange = sorted({name for run in runs for name in run.weights} - set(domains))
    if strange:
        raise BadPlan(f"a tiny run has domain {strange[0]}, which the prior has not; fit runs of one domain space")
    return np.array([[run.weights.get(name, 0.0) for name in domains] for run in runs], dtype=np.float64)


def capped(weights: Weights, settings: FitSettings) -> dict[str, float]:
    """``weights`` so that no domain's tokens are taken more than ``epochs_max`` times in ``budget`` tokens."""
    if settings.epochs_max is None:
        return dict(weights)
    left = {name: settings.epochs_max * settings.tokens[name] for name in weights}
    return project(weights, floor=0.0, most=caps(left, settings.budget))
