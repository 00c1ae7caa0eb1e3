"""What the reports of all benchmarks are made of: means over seeds, goals and how they were met, markdown tables."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Two-sided 95 % points of Student's t by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Values of the same thing over the seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % interval of the mean (Student's t over seeds); None for one seed."""
        freedom = len(self.values) - 1
        if freedom < 1 or freedom not in STUDENT:
            return None
        return STUDENT[freedom] * statistics.stdev(self.values) / math.sqrt(freedom + 1)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A goal, what was measured, and whether it is met."""

    what: str
    measured: Spread
    limit: float
    strict: bool = False
    """Whether it takes to be below the limit: what is to beat another does not by being equal."""

    @property
    def met(self) -> bool:
        return self.measured.mean < self.limit if self.strict else self.measured.mean <= self.limit

    @property
    def bound(self) -> str:
        """The limit, in words."""
        return f"{'<' if self.strict else '≤'} {self.limit:.1%}"

    @property
    def is_void(self) -> bool:
        """Whether there was nothing to compare with: the arm that should forget did not."""
        return math.isnan(self.measured.mean)

    @property
    def value(self) -> str:
        """What was measured, in words."""
        return "nothing was forgotten" if self.is_void else shown(self.measured, ".1%")


def shown(spread: Spread, form: str = ".3f") -> str:
    """A mean, and half of its 95 % interval where seeds differ; nothing where there is none."""
    if not spread.values or math.isnan(spread.mean):
        return ""
    half = spread.half_width
    return f"{spread.mean:z{form}}" + (f" ± {half:{form}}" if half else "")


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are figures."""
    lines = [f"| {' | '.join(head)} |", "| --- |" + " ---: |" * (len(head) - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def listed(parts: Iterable[str]) -> str:
    """Sentences as one text, without those that have nothing to say."""
    return " ".join(one for one in parts if one)


def goals_table(goals: Iterable[Goal]) -> str:
    """Everything that is claimed beside what was measured, and what was missed in words."""
    found = list(goals)
    if not found:
        return "No goal has both of its sides here."
    rows = [(one.what, one.value, one.bound, _met(one)) for one in found]
    missed = [one.what for one in found if _is_missed(one)]
    said = f"Missed: {'; '.join(missed)}." if missed else "No goal was missed."
    return markdown_table(("measured", "value", "goal", "met"), rows) + f"\n\n{said}"


def goals_line(goals: Iterable[Goal]) -> str:
    """How many goals were met, and each that was missed with its figures, in one line."""
    found = [one for one in goals if not one.is_void]
    missed = [f"{one.what} ({one.value}, goal {one.bound})" for one in found if _is_missed(one)]
    met = f"{len(found) - len(missed)} of {len(found)} goals met"
    return f"{met}; missed: {'; '.join(missed)}" if missed else met


def _is_missed(goal: Goal) -> bool:
    return not goal.met and not goal.is_void


def _met(goal: Goal) -> str:
    return "" if goal.is_void else "yes" if goal.met else "**no**"
