"""What a mixture can be tried on, and a run on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from strategies.agent.trajectories import Trajectory, TrajectoryDomain, TrajectoryHeader

Mixture = Sequence[float]
Chooser = Callable[[Trajectory], Mixture]
"""The history so far in, the next mixture out: an agent's ``next``, a baseline, or a script."""


class Environment(Protocol):
    """Trains one re-weighting step at a time from one shared start, whatever was done before the ``reset``."""

    @property
    def domains(self) -> tuple[TrajectoryDomain, ...]: ...

    def header(self, seed: int) -> TrajectoryHeader:
        """What a trajectory under ``seed`` says before its first step."""

    def reset(self, seed: int) -> Sequence[float]:
        """Back to the shared start, data ordered by ``seed``; returns the losses of all domains."""

    def step(self, mixture: Mixture) -> tuple[Sequence[float], int]:
        """One re-weighting step on ``mixture``; returns the losses after it and the tokens trained on."""


def rollout(environment: Environment, choose: Chooser, *, seed: int) -> Trajectory:
    """One whole run, each mixture chosen from the history before it."""
    history = environment.header(seed).begun(environment.reset(seed))
    while not history.complete:
        mixture = tuple(choose(history))
        losses, tokens = environment.step(mixture)
        history = history.after(weights=mixture, losses=losses, tokens=tokens)
    return history


def scripted(mixtures: Sequence[Mixture]) -> Chooser:
    """Takes ``mixtures`` one after the other."""
    return lambda history: mixtures[len(history.steps)]


def constant(mixture: Mixture) -> Chooser:
    """Takes one mixture at every step."""
    return lambda history: mixture
