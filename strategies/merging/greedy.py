"""Greedy soup: which models join, from scores alone (Wortsman et al. 2022, recipe 1; METHODS 7.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Greedy:
    """What was tried: each model by itself, each soup by the name that joined or did not, and who is in."""

    alone: dict[str, float] = field(default_factory=dict)
    together: dict[str, float] = field(default_factory=dict)
    kept: list[str] = field(default_factory=list)


def greedy_soup(names: Sequence[str], score: Callable[[str], float], take: Callable[[str], None]) -> Greedy:
    """Best model first; each other one joins if the soup with it scores strictly higher than the soup without.

    Args:
        names: the models; of equal scores the earlier one comes first.
        score: of the mean of what was taken so far and the named model, on held-out rows; higher is better.
        take: puts the named model in for good.
    """
    found = Greedy(alone={name: score(name) for name in names})
    best, *others = sorted(names, key=lambda name: -found.alone[name])
    take(best)
    found.kept.append(best)
    reached = found.alone[best]
    for name in others:
        found.together[name] = score(name)
        if found.together[name] > reached:
            take(name)
            found.kept.append(name)
            reached = found.together[name]
    return found
