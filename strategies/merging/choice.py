"""Which of several repairs is taken, from scores alone: pure, no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from strategies.scores import Metric

Scores = Mapping[str, float]
"""Value of each eval set by name: nats a token, or a share of right answers."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An eval set as a repair looks at it.

    ``tolerance`` is the largest rise over the parent: relative for a loss, absolute for an accuracy's fall.
    """

    name: str
    metric: Metric
    role: Literal["new", "old"]
    tolerance: float = 0.0


def rise(one: Judged, value: float, parent: float) -> float:
    """How much worse than the parent: the relative rise of a loss, or the fall of an accuracy; below 0: better.

    Infinite where the value is not finite: a model that broke is never chosen.
    """
    if not math.isfinite(value):
        return math.inf
    if one.metric == "accuracy":
        return parent - value
    return value / parent - 1 if parent > 0 else (0.0 if value <= parent else math.inf)


def gain(sets: Sequence[Judged], scores: Scores, parent: Scores) -> float:
    """Mean improvement over the parent on the sets of role ``new``."""
    new = [-rise(one, scores[one.name], parent[one.name]) for one in sets if one.role == "new"]
    return sum(new) / len(new)


def within(sets: Sequence[Judged], scores: Scores, parent: Scores) -> bool:
    """Whether no set of role ``old`` rises above its tolerance."""
    return all(rise(one, scores[one.name], parent[one.name]) <= one.tolerance for one in sets if one.role == "old")


def choose(sets: Sequence[Judged], trials: Mapping[str, Scores], parent: Scores) -> str | None:
    """The trial within every tolerance that gains most on the new data; of equals the first; None if none gains."""
    gains = {name: gain(sets, scores, parent) for name, scores in trials.items() if within(sets, scores, parent)}
    best = max(gains, key=lambda name: gains[name], default=None)
    return best if best is not None and gains[best] > 0 else None
