"""Skill-It's edge test on the proxy: does training on one domain help another (METHODS 4.3)?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

from strategies.agent.environment import ProxyEnvironment
from strategies.agent.rollout import constant, rollout
from strategies.mixing.skill_it import edges


def skill_graph(
    environment: ProxyEnvironment, *, seeds: Sequence[int], weight: float | None, done: Callable[[int], None]
) -> dict[str, dict[str, float]]:
    """Domain -> the domains that training on it helps, by the test of :func:`~strategies.mixing.skill_it.edges`.

    Every domain is trained on alone and every pair half and half, each from the shared start and for all steps of the
    environment: K (K + 1) / 2 runs a seed, whose losses are averaged over the seeds. ``done`` hears how many runs are.
    """
    names = [domain.name for domain in environment.domains]
    losses: dict[frozenset[str], dict[str, float]] = {}
    count = 0
    for members in (*combinations(names, 1), *combinations(names, 2)):
        mixture = [(name in members) / len(members) for name in names]
        found = dict.fromkeys(names, 0.0)
        for seed in seeds:
            last = rollout(environment, constant(mixture), seed=seed).steps[-1].losses
            found = {name: found[name] + loss / len(seeds) for name, loss in zip(names, last, strict=True)}
            count += 1
            done(count)
        losses[frozenset(members)] = found
    alone = {name: losses[frozenset((name,))][name] for name in names}
    together = {i: {j: losses[frozenset((i, j))][j] for j in names if j != i} for i in names}
    return edges(alone, together, weight=weight)
