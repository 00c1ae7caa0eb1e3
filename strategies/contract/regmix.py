"""What RegMix is asked for and what it found, as plain values: the contract carries them, and numbers stay outside."""

from __future__ import annotations

from pydantic import Field, model_validator

from strategies.settings import Closed

LEAST_RUNS = 24
"""Fewer leave nothing to choose the regression by."""


class ProxyRun(Closed):
    """One tiny run: its mixture, and the losses it ended with, by eval set."""

    weights: dict[str, float]
    losses: dict[str, float]


class FitSettings(Closed):
    """What the fit aims at and keeps to.

    ``rounds`` and what follows are constants of the published code, which no setting changes. A plan has them by value,
    so that one that was made by another version is carried out and shown as it was made.
    """

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
    """Of boosting, at most."""
    learning_rate: float = Field(0.01, gt=0)
    patience: int = Field(3, ge=1)
    """Rounds without a better loss after which boosting ends."""
    simulated: int = Field(100_000, ge=1)
    """Mixtures whose loss is predicted."""
    averaged: int = Field(128, ge=1)
    """So many of the best of them."""

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
