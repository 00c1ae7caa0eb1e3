"""The weights of a version's domains over its steps, as lines of blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40


def mixture_plot(facts: Mapping[str, Any]) -> Iterator[str]:
    """A heading and a line a domain for every job that mixed domains: first weight, course, last weight, last loss."""
    for job, found in facts.get("jobs", {}).items():
        course = found.get("mixture") or []
        if course:
            yield f"\nweights of job {job}, steps {course[0]['step']} to {course[-1]['step']}"
            yield from _lines(course)


def _lines(course: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    names = list(course[0]["weights"])
    width = max(len(name) for name in names)
    for name in names:
        weights = [float(Fraction(point["weights"][name])) for point in course]
        loss = next((point["losses"][name] for point in reversed(course) if name in point["losses"]), None)
        said = "" if loss is None else f"  loss {loss:.4g}"
        yield f"  {name:<{width}}  {weights[0]:6.1%}  {_bar(weights)}  {weights[-1]:6.1%}{said}"


def _bar(weights: Sequence[float]) -> str:
    """One block a step, from 0 to 1; long courses are thinned evenly."""
    count = min(WIDTH, len(weights))
    kept = [weights[at * (len(weights) - 1) // max(1, count - 1)] for at in range(count)]
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(weight * len(BLOCKS)))] for weight in kept)
