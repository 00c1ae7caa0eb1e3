"""The probe: short runs of a few compositions on a slice, by successive halving (Jamieson and Talwalkar 2016).

Every round trains what is left from the live version anew, each for as many steps as its share of the round's budget
pays, with the whole of its schedule in them; the better part goes on to the next round with more steps. What the rules
chose stays until the last round. The rounds are scored on one part of the ``select`` documents; the finalists are
judged on the other part, which no round has looked at. The gate's ``judge`` documents are not read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field

from strategies.settings import Closed

MIN_STEPS = 4
"""A shorter run shows its warm-up alone."""


class Round(NamedTuple):
    """How many compositions train in a round, and for how many steps each."""

    candidates: int
    steps: int


class Trial(Closed):
    """One short run and how it scored."""

    round: int
    candidate: str
    steps: int
    tokens: int
    score: float
    """Mean change on the new sets plus mean change on the older ones, from the live version: relative for losses, the
    fall for accuracies; lower is better."""
    judged: float | None = None
    """The same on the part that no round has looked at; of finalists."""
    sets: dict[str, float] = Field(default_factory=dict)


class ProbeResult(Closed):
    """What came of a probe."""

    job: int | None = None
    chosen: str | None
    """None: nothing could be judged, and the rules' choice stands."""
    reason: str
    budget_steps: int = 0
    trials: tuple[Trial, ...] = ()
    before: dict[str, float] = Field(default_factory=dict)
    """The live version's own values, by eval set."""


def rounds(budget: int, candidates: int, keep: float) -> tuple[Round, ...]:
    """The rounds that ``budget`` steps pay for: as many of the candidates as get :data:`MIN_STEPS` each.

    Empty where the budget does not even pay for two.
    """
    for count in range(candidates, 1, -1):
        sizes = _sizes(count, keep)
        made = tuple(Round(candidates=size, steps=budget // (len(sizes) * size)) for size in sizes)
        if all(one.steps >= MIN_STEPS for one in made):
            return made
    return ()


def steps_of(made: Sequence[Round]) -> int:
    """What the rounds cost."""
    return sum(one.candidates * one.steps for one in made)


def _sizes(count: int, keep: float) -> list[int]:
    """How many train in each round; the last round has two or more."""
    sizes = [count]
    while (left := min(sizes[-1] - 1, max(2, math.ceil(sizes[-1] * keep)))) >= 2:
        sizes.append(left)
    return sizes


def survivors(scores: dict[str, float], *, count: int, incumbent: str) -> tuple[str, ...]:
    """The ``count`` candidates of the lowest scores, the incumbent among them whatever it scored."""
    best = sorted(scores, key=lambda name: (scores[name], name != incumbent))[:count]
    return tuple(best if incumbent in best else [*best[:-1], incumbent])


def winner(judged: dict[str, float], *, incumbent: str) -> str:
    """The finalist of the lowest score; among equals the incumbent."""
    return min(judged, key=lambda name: (judged[name], name != incumbent))
