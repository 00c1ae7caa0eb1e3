"""What an agent sees of a trajectory, and what it is rewarded for (METHODS 4.1): numbers for each step and domain.

Losses are standardised by the statistics of the environment, which a domain's own observations adapt as they come in;
learning and inference use the same function, so a state looks alike in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from strategies.agent.trajectories import Trajectory
from strategies.errors import Refused
from strategies.settings import Closed

Array = NDArray[np.float64]

FEATURES = 9
LEAST_RUNS = 8
"""Trajectories of a domain in one environment below which its own statistics would say little but how they ended."""
_LEAST_DEVIATION = 1e-4
_LIMIT = 10.0
_SHARE_FLOOR = 1e-3


class Statistic(Closed):
    """Mean and standard deviation of a domain's loss over trajectories."""

    mean: float
    deviation: float = Field(gt=0)


class Standardisation(Closed):
    """Loss statistics by environment and domain; ``pooled`` stands in for a domain that was never or seldom seen."""

    environments: dict[str, dict[str, Statistic]]
    pooled: Statistic
    strength: float = Field(gt=0)
    """Observations that a domain's statistics count for in its own environment; all others count for 1."""

    def of(self, environment: str, name: str) -> tuple[Statistic, float]:
        """What is known of a domain before its first loss, and how many observations that counts for.

        Elsewhere a domain keeps the mean of its statistics, so that a large model begins with those of the proxy.
        """
        known = self.environments.get(environment, {}).get(name)
        if known is not None:
            return known, self.strength
        return _pooled([found[name] for found in self.environments.values() if name in found] or [self.pooled]), 1.0


def measure(trajectories: Iterable[Trajectory], *, strength: float) -> Standardisation:
    """Statistics over all trajectories and steps.

    A domain that one environment has in few trajectories, such as a stream's newest batch, gets none of its own: its
    deviation would be the fall that is to be rewarded, and its mean would tell where the losses went.

    Raises:
        Refused: there are no trajectories.
    """
    losses: dict[str, dict[str, list[list[float]]]] = {}
    for trajectory in trajectories:
        columns = losses.setdefault(trajectory.environment, {})
        for name, column in zip(trajectory.names, loss_table(trajectory).T.tolist(), strict=True):
            columns.setdefault(name, []).append(column)
    if not losses:
        raise Refused("an agent needs trajectories to learn from: collect some, or let runs log theirs")
    pooled = _pooled([_statistic(runs) for of in losses.values() for runs in of.values()])
    known = {
        place: {name: _statistic(runs) for name, runs in of.items() if len(runs) >= LEAST_RUNS}
        for place, of in losses.items()
    }
    return Standardisation(environments=known, pooled=pooled, strength=strength)


def loss_table(trajectory: Trajectory) -> Array:
    """Losses [steps + 1, domains], the start first."""
    return np.array([trajectory.start, *(done.losses for done in trajectory.steps)], dtype=np.float64)


def weight_table(trajectory: Trajectory) -> Array:
    """Mixtures [steps, domains]."""
    rows = [done.weights for done in trajectory.steps]
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(trajectory.domains))


def tokens(trajectory: Trajectory, standardisation: Standardisation) -> Array:
    """States [steps + 1, domains, FEATURES]: one token a domain, after 0, 1, … steps."""
    losses, prior = loss_table(trajectory), np.array(trajectory.prior)
    level, change = _standardised(losses, trajectory, standardisation)
    weights = np.concatenate([prior[None], weight_table(trajectory)])
    fixed = [prior, _relative(prior), [float(d.new) for d in trajectory.domains], _similarities(trajectory)]
    static = np.broadcast_to(np.stack([np.asarray(one) for one in fixed], -1), (*losses.shape, len(fixed)))
    progress = np.broadcast_to((np.arange(len(losses)) / trajectory.total)[:, None, None], (*losses.shape, 1))
    moving = np.stack([weights, _relative(weights), level, change], -1)
    return np.concatenate([moving, static, progress], -1)


def rewards(trajectory: Trajectory, deviations: Sequence[float]) -> Array:
    """r_t = sum_e w_e (e_{t-1} - e_t) / sigma_e [steps]; the weights of old and of new domains each add up to 1."""
    falls = -np.diff(loss_table(trajectory), axis=0) / np.asarray(deviations, dtype=np.float64)
    return np.asarray(falls @ reward_weights(trajectory), dtype=np.float64)


def reward_weights(trajectory: Trajectory) -> Array:
    """w_e [domains]: equal within the old and within the new domains."""
    new = np.array([domain.new for domain in trajectory.domains])
    counts = np.where(new, new.sum(), (~new).sum())
    return np.asarray(1.0 / counts, dtype=np.float64)


def deviations(trajectory: Trajectory, standardisation: Standardisation) -> list[float]:
    """sigma_e of the trajectory's domains."""
    return [standardisation.of(trajectory.environment, name)[0].deviation for name in trajectory.names]


def returns(rewarded: Array, discount: float) -> Array:
    """Discounted return-to-go G_t = sum_k gamma^k r_{t+k} [steps]."""
    found = np.zeros_like(rewarded)
    ahead = 0.0
    for at in range(len(rewarded) - 1, -1, -1):
        ahead = found[at] = rewarded[at] + discount * ahead
    return found


def _standardised(losses: Array, trajectory: Trajectory, standardisation: Standardisation) -> tuple[Array, Array]:
    """Level and change of every loss in running deviations; row t depends on rows up to t alone."""
    priors = [standardisation.of(trajectory.environment, name) for name in trajectory.names]
    mean, deviation = (np.array([getattr(one, what) for one, _ in priors]) for what in ("mean", "deviation"))
    strength = np.array([count for _, count in priors])
    count = strength + np.arange(1, len(losses) + 1)[:, None]
    apart = losses - mean
    shift = np.cumsum(apart, axis=0) / count
    spread = (strength * deviation**2 + np.cumsum(apart**2, axis=0)) / count - shift**2
    scale = np.sqrt(np.maximum(spread, _LEAST_DEVIATION**2))
    change = np.diff(losses, axis=0, prepend=losses[:1]) / scale
    return np.clip((apart - shift) / scale, -_LIMIT, _LIMIT), np.clip(change, -_LIMIT, _LIMIT)


def _pooled(known: Sequence[Statistic]) -> Statistic:
    deviation = float(np.sqrt(np.mean([one.deviation**2 for one in known])))
    return Statistic(mean=float(np.mean([one.mean for one in known])), deviation=deviation)


def _relative(shares: Array) -> Array:
    return np.asarray(np.log((shares + _SHARE_FLOOR) * shares.shape[-1]), dtype=np.float64)


def _similarities(trajectory: Trajectory) -> list[float]:
    return [domain.similarity for domain in trajectory.domains]


def _statistic(runs: Sequence[Sequence[float]]) -> Statistic:
    losses = np.concatenate(runs)
    return Statistic(mean=float(np.mean(losses)), deviation=max(float(np.std(losses)), _LEAST_DEVIATION))
