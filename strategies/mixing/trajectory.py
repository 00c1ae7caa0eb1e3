"""The course of a mixture: which weights were in force from which step on, and the losses that were seen there.

Kept with a version as ``evidence/mixture``, one JSON object a line, and as ``evidence/mixture/JOB`` for a job before
the result, such as DoReMi's proxy. Courses of many runs are what an agent learns from, so that they are worth keeping
from the first run on (METHODS 4.5).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from pydantic import Field

from strategies.settings import Closed


class MixturePoint(Closed):
    """Weights of all domains for the steps after ``step``, and the losses that the model had at ``step``."""

    step: int
    weights: dict[str, str]
    losses: dict[str, float] = Field(default_factory=dict)


def points(steps: Iterable[int], weights: Iterable[Mapping[str, float]]) -> list[MixturePoint]:
    """A course of floating-point weights, such as those of group DRO, in 6 decimals."""
    return [
        MixturePoint(step=step, weights={name: f"{weight:.6f}" for name, weight in found.items()})
        for step, found in zip(steps, weights, strict=True)
    ]


def write_trajectory(path: Path, course: Iterable[MixturePoint]) -> None:
    """One line a point."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(point.model_dump_json() + "\n" for point in course))
