"""An environment whose best mixtures are known: power laws in tokens, where training one domain undoes others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from strategies.agent.proposals import propose
from strategies.agent.rollout import rollout, scripted
from strategies.agent.trajectories import Provenance, Trajectory, TrajectoryDomain, TrajectoryHeader
from strategies.settings.agent import AgentSettings, ProposalSettings

TOKENS = 1000
SMALL = AgentSettings(width=16, heads=2, layers=1, critic_width=16, window=4)


class PowerLaws:
    """Loss_k = 2 + n_k ** -0.5, where a step on domain j adds gain[k][j] to n_k."""

    def __init__(
        self,
        domains: Sequence[TrajectoryDomain],
        *,
        total: int,
        begun: Sequence[float],
        gain: Sequence[Sequence[float]],
    ):
        self.domains, self.total = tuple(domains), total
        self._begun, self._gain = np.array(begun), np.array(gain)

    def header(self, seed: int) -> TrajectoryHeader:
        provenance = Provenance(seeds={"data": seed})
        return TrajectoryHeader(environment="power-laws", domains=self.domains, total=self.total, provenance=provenance)

    def reset(self, seed: int) -> tuple[float, ...]:
        self._known = self._begun.copy()
        return self._losses()

    def step(self, mixture: Sequence[float]) -> tuple[tuple[float, ...], int]:
        self._known = np.maximum(self._known + self._gain @ np.asarray(mixture), 0.2)
        return self._losses(), TOKENS

    def _losses(self) -> tuple[float, ...]:
        return tuple((2.0 + self._known**-0.5).tolist())


def world(total: int = 12) -> PowerLaws:
    """An old domain that is forgotten where ``new`` is trained; an old and a new one that own data does not help."""
    domains = [
        TrajectoryDomain(name="old", new=False, prior=0.3),
        TrajectoryDomain(name="stale", new=False, prior=0.3),
        TrajectoryDomain(name="new", new=True, prior=0.1, similarity=0.9),
        TrajectoryDomain(name="noise", new=True, prior=0.3, similarity=0.6),
    ]
    gain = [[1.0, 0.0, -0.3, 0.0], [0.3, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.4, 0.0]]
    return PowerLaws(domains, total=total, begun=[1.5, 3.0, 0.5, 0.5], gain=gain)


def other_world(total: int = 12) -> PowerLaws:
    """Other domains, and another number of them."""
    domains = [
        TrajectoryDomain(name="a", new=False, prior=0.5),
        TrajectoryDomain(name="b", new=True, prior=0.3, similarity=0.9),
        TrajectoryDomain(name="c", new=True, prior=0.2, similarity=0.5),
    ]
    gain = [[1.0, -0.2, 0.0], [0.0, 1.0, 0.0], [0.0, 0.4, 0.0]]
    return PowerLaws(domains, total=total, begun=[4.0, 0.3, 0.5], gain=gain)


def runs(environment: PowerLaws, count: int = 48) -> list[Trajectory]:
    """What an agent learns from."""
    proposals = propose(environment.domains, ProposalSettings(trajectories=count, steps=environment.total))
    return [rollout(environment, scripted(one.mixtures), seed=0) for one in proposals]
