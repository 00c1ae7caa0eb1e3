"""What RegMix is asked for and what it found, as plain values: the contract carries them, and numbers stay outside."""

from __future__ import annotations

from pydantic import Field, model_validator

from strategies.settings import Closed

LEAST_RUNS = 24
"""Fewer leave nothing to choose the regression by."""


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
    """Weights below it become 0, the others its multiples; made finer until enough mixtures differ."""
    oversample: int = Field(100, ge=1)
    near: float = Field(1e-5, ge=0)
    """Mixtures that are no further apart (sum of absolutes) are one."""


class ProxyRun(Closed):
    """One tiny run: its mixture, and the losses it ended with, by eval set."""

    weights: dict[str, float]
    losses: dict[str, float]


class FitSettings(Closed):
    """What the fit aims at and keeps to; the defaults are the published code's."""

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
