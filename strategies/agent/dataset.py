"""Trajectories as arrays, and batches of sub-sequences drawn from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from strategies.agent import features
from strategies.agent.features import FEATURES, Array, Standardisation
from strategies.agent.trajectories import Trajectory, line
from strategies.errors import Refused
from strategies.settings import Closed
from strategies.settings.agent import LearningSettings

DECILES = 10
Step = tuple[float, int, int]
"""Return-to-go of a step, its run and its place in that."""


class Lessons(Closed):
    """Which trajectories were learned from."""

    trajectories: int
    steps: int
    environments: tuple[str, ...]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of all trajectories, in order, as JSON lines."""

    @classmethod
    def of(cls, trajectories: Sequence[Trajectory]) -> Lessons:
        digest = hashlib.sha256()
        for trajectory in trajectories:
            digest.update(line(trajectory))
        return cls(
            trajectories=len(trajectories),
            steps=sum(len(trajectory.steps) for trajectory in trajectories),
            environments=tuple(sorted({trajectory.environment for trajectory in trajectories})),
            sha256=digest.hexdigest(),
        )


@dataclass(frozen=True, kw_only=True)
class TrajectoryArrays:
    """One trajectory of n steps and K domains, as numbers."""

    states: Array
    """[n + 1, K, FEATURES]"""
    mixtures: Array
    """[n, K], the one taken in each state but the last"""
    rewards: Array
    """[n]"""
    last: Array
    """[n], 1 where the planned run ends with that step: nothing follows to bootstrap from"""
    kept: Array
    """[n], 1 where the warm start imitates the step"""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B sub-sequences of up to T transitions, padded at the end."""

    states: Tensor
    """[B, T + 1, K, FEATURES]"""
    mixtures: Tensor
    """[B, T, K]"""
    rewards: Tensor
    last: Tensor
    kept: Tensor
    """each [B, T]"""
    real: Tensor
    """[B, T], 0 where padded"""
    present: Tensor
    """[B, K], whether a domain exists"""

    def split(self, rows: int) -> list[Batch]:
        """The same in pieces of at most ``rows`` sub-sequences."""
        names = [field.name for field in fields(self)]
        pieces = zip(*(getattr(self, name).split(rows) for name in names), strict=True)
        return [Batch(**dict(zip(names, piece, strict=True))) for piece in pieces]

    def mean(self, values: Tensor, steps: Tensor) -> Tensor:
        """The part of these sub-sequences in a mean of ``values`` [B, T] over ``steps`` real steps."""
        return (self.real * values).sum() / steps

    def to(self, device: torch.device) -> Batch:
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


class Dataset:
    """All transitions of ``trajectories``; each is as likely to be in a batch as any other."""

    def __init__(
        self, trajectories: Sequence[Trajectory], standardisation: Standardisation, settings: LearningSettings
    ) -> None:
        used = [trajectory for trajectory in trajectories if trajectory.steps]
        if not used:
            raise Refused("none of the trajectories has a step: there is nothing to learn from")
        rewarded = [features.rewards(one, features.deviations(one, standardisation)) for one in used]
        kept = kept_steps(used, rewarded, settings)
        self.runs = [
            TrajectoryArrays(
                states=features.tokens(one, standardisation),
                mixtures=features.weight_table(one),
                rewards=reward,
                last=np.arange(1, len(reward) + 1) == one.total,
                kept=keep,
            )
            for one, reward, keep in zip(used, rewarded, kept, strict=True)
        ]
        self._domains = max(run.mixtures.shape[1] for run in self.runs)

    def batch(self, rng: np.random.Generator, *, size: int, window: int) -> Batch:
        """``size`` sub-sequences of up to ``window`` transitions.

        A window may begin before the run or reach beyond its end, so that first and last steps are not seen less.
        """
        spots = np.array([len(run.rewards) + window - 1 for run in self.runs])
        picked = rng.choice(len(self.runs), size=size, p=spots / spots.sum())
        begins = rng.integers(0, spots[picked]) - (window - 1)
        rows = [
            self._row(self.runs[run], max(0, begin), begin + window, window)
            for run, begin in zip(picked.tolist(), begins.tolist(), strict=True)
        ]
        stacked = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
        return Batch(**{name: one.bool() if name == "present" else one.float() for name, one in stacked.items()})

    def _row(self, run: TrajectoryArrays, begin: int, end: int, window: int) -> dict[str, Array]:
        end = min(end, len(run.rewards))
        domains = run.mixtures.shape[1]
        row = {name: np.zeros(window) for name in ("rewards", "last", "kept", "real")}
        row["states"] = np.zeros((window + 1, self._domains, FEATURES))
        row["mixtures"], row["present"] = np.zeros((window, self._domains)), np.arange(self._domains) < domains
        row["states"][: end - begin + 1, :domains] = run.states[begin : end + 1]
        row["mixtures"][: end - begin, :domains] = run.mixtures[begin:end]
        for name in ("rewards", "last", "kept"):
            row[name][: end - begin] = getattr(run, name)[begin:end]
        row["real"][: end - begin] = 1
        return row


def kept_steps(
    trajectories: Sequence[Trajectory], rewarded: Sequence[Array], settings: LearningSettings
) -> list[Array]:
    """1 for the steps with the best returns-to-go: the share ``keep`` of each progress decile, within an environment.

    Environments with too few steps for a best one among them, such as single training runs, are compared together.
    Returns shrink with progress, so steps are compared with their like. What a run that ended early would still have
    earned is not known: its steps are never kept.
    """
    kept = [np.zeros(len(reward)) for reward in rewarded]
    pools: dict[tuple[str, int], list[Step]] = {}
    for run, (trajectory, reward) in enumerate(zip(trajectories, rewarded, strict=True)):
        if not trajectory.complete:
            continue
        for step, ahead in enumerate(features.returns(reward, settings.discount).tolist()):
            decile = step * DECILES // trajectory.total
            pools.setdefault((trajectory.environment, decile), []).append((ahead, run, step))
    for pool in _joined(pools, least=round(1 / settings.keep)):
        best = sorted(pool, key=lambda one: (-one[0], one[1], one[2]))
        for _, run, step in best[: max(1, round(settings.keep * len(pool)))]:
            kept[run][step] = 1.0
    return kept


def _joined(pools: Mapping[tuple[str, int], list[Step]], *, least: int) -> list[list[Step]]:
    """The pools, those of a decile that have fewer than ``least`` steps as one."""
    large = [pool for pool in pools.values() if len(pool) >= least]
    small: dict[int, list[Step]] = {}
    for (_, decile), pool in pools.items():
        if len(pool) < least:
            small.setdefault(decile, []).extend(pool)
    return [*large, *small.values()]
