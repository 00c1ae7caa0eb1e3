"""Compare ways to choose mixtures at equal tokens, on domains that the agent knows or has never seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Literal

import numpy as np

from strategies.agent.features import Array, loss_table, reward_weights
from strategies.agent.proposals import constants
from strategies.agent.rollout import Chooser, Environment, constant, rollout
from strategies.agent.trajectories import Trajectory, TrajectoryDomain
from strategies.errors import BadPlan
from strategies.settings import Closed
from strategies.settings.agent import REPLAY


class Outcome(Closed):
    """One way to choose, under one seed."""

    policy: str
    seed: int
    losses: dict[str, float]
    """Final loss of every domain."""
    old_loss: float | None
    new_loss: float | None
    """Mean final loss of the old and of the new domains; None where there are none."""
    fall: float
    """Undiscounted return: by how many deviations losses fell, old and new domains weighing the same."""
    tokens: int
    mixture: dict[str, float]
    """Mean mixture over the steps."""


class Summary(Closed):
    """One way to choose, over all seeds."""

    policy: str
    losses: dict[str, float]
    old_loss: float | None
    new_loss: float | None
    fall: float
    fall_deviation: float
    seeds: int


class Comparison(Closed):
    """A table of outcomes; ``deviations`` are those of every domain's loss over all the runs compared."""

    format: Literal[1] = 1
    environment: str
    deviations: dict[str, float]
    outcomes: tuple[Outcome, ...]

    def summaries(self) -> tuple[Summary, ...]:
        """A row for each policy, the greatest fall first."""
        names = dict.fromkeys(outcome.policy for outcome in self.outcomes)
        rows = [_summary(name, [one for one in self.outcomes if one.policy == name]) for name in names]
        return tuple(sorted(rows, key=lambda row: -row.fall))


def compare(
    environment: Environment,
    policies: Mapping[str, Chooser],
    *,
    seeds: Sequence[int],
    run: Callable[[str, Chooser, int], Trajectory] | None = None,
) -> Comparison:
    """Run every policy under every seed, by a rollout or by ``run``, which may have kept one.

    Deviations are taken over the compared runs, not from what an agent learned from: so held-out domains count alike,
    and no policy is scored in units of its own.

    Raises:
        BadPlan: nothing to compare, or a policy that did not train on as many tokens as the others.
    """
    if not policies or not seeds:
        raise BadPlan("a comparison needs at least one policy and one seed")
    found = run or (lambda _, choose, seed: rollout(environment, choose, seed=seed))
    runs = [(name, seed, found(name, policies[name], seed)) for name in policies for seed in seeds]
    if len({_tokens(run) for _, _, run in runs}) != 1:
        raise BadPlan("the compared runs trained on different numbers of tokens: give every policy the same steps")
    spread = np.maximum(np.concatenate([loss_table(run) for _, _, run in runs]).std(0), 1e-12)
    return Comparison(
        environment=runs[0][2].environment,
        deviations=dict(zip(runs[0][2].names, spread.tolist(), strict=True)),
        outcomes=tuple(_outcome(name, seed, run, spread) for name, seed, run in runs),
    )


def baselines(
    domains: Sequence[TrajectoryDomain], given: Mapping[str, Sequence[float]] | None = None
) -> dict[str, Chooser]:
    """Constant mixtures to compare with: uniform, prior, those ``given``, and replay where there are two sides."""
    return {name: constant(mixture) for name, mixture in constants(domains, REPLAY, given).items()}


def _outcome(name: str, seed: int, run: Trajectory, spread: Array) -> Outcome:
    losses = loss_table(run)
    final = losses[-1].tolist()
    means = np.mean([done.weights for done in run.steps], axis=0).tolist()
    return Outcome(
        policy=name,
        seed=seed,
        losses=dict(zip(run.names, final, strict=True)),
        old_loss=_mean([loss for loss, domain in zip(final, run.domains, strict=True) if not domain.new]),
        new_loss=_mean([loss for loss, domain in zip(final, run.domains, strict=True) if domain.new]),
        fall=float((losses[0] - losses[-1]) / spread @ reward_weights(run)),
        tokens=_tokens(run),
        mixture=dict(zip(run.names, means, strict=True)),
    )


def _summary(name: str, found: Sequence[Outcome]) -> Summary:
    falls = [one.fall for one in found]
    return Summary(
        policy=name,
        losses={domain: fmean(one.losses[domain] for one in found) for domain in found[0].losses},
        old_loss=_mean([one.old_loss for one in found if one.old_loss is not None]),
        new_loss=_mean([one.new_loss for one in found if one.new_loss is not None]),
        fall=fmean(falls),
        fall_deviation=stdev(falls) if len(falls) > 1 else 0.0,
        seeds=len(found),
    )


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _tokens(run: Trajectory) -> int:
    return sum(done.tokens for done in run.steps)
