"""Which of several repairs is taken, from scores alone: pure, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from strategies.scores import Metric, worsening

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


def gain(sets: Sequence[Judged], scores: Scores, parent: Scores) -> float:
    """Mean improvement over the parent on the sets of role ``new``."""
    new = [-_rise(one, scores, parent) for one in sets if one.role == "new"]
    return sum(new) / len(new)


def within(sets: Sequence[Judged], scores: Scores, parent: Scores) -> bool:
    """Whether no set of role ``old`` rises above its tolerance."""
    return all(_rise(one, scores, parent) <= one.tolerance for one in sets if one.role == "old")


def choose(sets: Sequence[Judged], trials: Mapping[str, Scores], parent: Scores) -> str | None:
    """The trial within every tolerance that gains most on the new data; of equals the first; None if none gains."""
    gains = {name: gain(sets, scores, parent) for name, scores in trials.items() if within(sets, scores, parent)}
    best = max(gains, key=lambda name: gains[name], default=None)
    return best if best is not None and gains[best] > 0 else None


def _rise(one: Judged, scores: Scores, parent: Scores) -> float:
    return worsening(one.metric, parent[one.name], scores[one.name])
