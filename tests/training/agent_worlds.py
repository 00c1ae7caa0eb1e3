"""An environment whose best mixtures are known: power laws in tokens, where training one domain undoes others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from strategies.agent.proposals import propose
from strategies.agent.rollout import rollout, scripted
from strategies.agent.trajectories import Domain, Head, Provenance, Trajectory
from strategies.settings.agent import AgentSettings, ProposalSettings

TOKENS = 1000
SMALL = AgentSettings(width=16, heads=2, layers=1, critic_width=16, window=4)


class PowerLaws:
    """Loss_k = 2 + n_k ** -0.5, where a step on domain j adds gain[k][j] to n_k."""

    def __init__(
        self, domains: Sequence[Domain], *, total: int, begun: Sequence[float], gain: Sequence[Sequence[float]]
    ):
        self.domains, self.total = tuple(domains), total
        self._begun, self._gain = np.array(begun), np.array(gain)

    def head(self, seed: int) -> Head:
        provenance = Provenance(seeds={"data": seed})
        return Head(environment="power-laws", domains=self.domains, total=self.total, provenance=provenance)

    def reset(self, seed: int) -> tuple[float, ...]:
        self._known = self._begun.copy()
        return self._losses()

    def step(self, mixture: Sequence[float]) -> tuple[tuple[float, ...], int]:
        self._known = np.maximum(self._known + self._gain @ np.asarray(mixture), 0.2)
        return self._losses(), TOKENS

    def _losses(self) -> tuple[float, ...]:
        return tuple((2.0 + self._known**-0.5).tolist())


def world(total: int = 12) -> PowerLaws:
    """A source that is forgotten where the new target is trained; a source and a target that own data does not help."""
    domains = [
        Domain(name="old", target=False, prior=0.3),
        Domain(name="stale", target=False, prior=0.3),
        Domain(name="new", target=True, prior=0.1, similarity=0.9),
        Domain(name="noise", target=True, prior=0.3, similarity=0.6),
    ]
    gain = [[1.0, 0.0, -0.3, 0.0], [0.3, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.4, 0.0]]
    return PowerLaws(domains, total=total, begun=[1.5, 3.0, 0.5, 0.5], gain=gain)


def other_world(total: int = 12) -> PowerLaws:
    """Other domains, and another number of them."""
    domains = [
        Domain(name="a", target=False, prior=0.5),
        Domain(name="b", target=True, prior=0.3, similarity=0.9),
        Domain(name="c", target=True, prior=0.2, similarity=0.5),
    ]
    gain = [[1.0, -0.2, 0.0], [0.0, 1.0, 0.0], [0.0, 0.4, 0.0]]
    return PowerLaws(domains, total=total, begun=[4.0, 0.3, 0.5], gain=gain)


def runs(environment: PowerLaws, count: int = 48) -> list[Trajectory]:
    """What an agent learns from."""
    proposals = propose(environment.domains, ProposalSettings(trajectories=count, steps=environment.total))
    return [rollout(environment, scripted(one.mixtures), seed=0) for one in proposals]
