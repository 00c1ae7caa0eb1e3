"""How far one score is from another, the same wherever it is asked: pure, no torch."""

from __future__ import annotations

from typing import Literal

Metric = Literal["loss", "accuracy"]
"""Nats a token, lower is better; or a share of right answers, higher is better."""


def worsening(metric: str, reference: float, value: float) -> float:
    """How much worse ``value`` is: the relative rise of a loss, or the fall of an accuracy; below 0: better.

    A reference loss of 0 has no relative rise; it counts as none.
    """
    if metric == "accuracy":
        return reference - value
    return (value - reference) / reference if reference else 0.0
