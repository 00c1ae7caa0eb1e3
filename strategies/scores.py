"""How far one score is from another, the same wherever it is asked: pure, no torch."""

from __future__ import annotations

import math
from typing import Literal

Metric = Literal["loss", "accuracy"]
"""Nats a token, lower is better; or a share of right answers, higher is better."""
LEAST_LOSS = 1e-12
"""A loss below this counts as this where another is compared with it: a rise from 0 is beyond every tolerance, yet a
number that JSON holds."""


def worsening(metric: str, reference: float, value: float) -> float:
    """How much worse ``value`` is: the relative rise of a loss, or the fall of an accuracy; below 0: better.

    Infinite where the value is not finite: nothing is worse than a model that broke.
    """
    if not math.isfinite(value):
        return math.inf
    if metric == "accuracy":
        return reference - value
    return (value - reference) / max(reference, LEAST_LOSS)
