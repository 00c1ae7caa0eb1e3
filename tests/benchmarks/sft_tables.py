"""Tables of instruction tuning: what was learned of each family, and what of it is left at the end."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping

from tests.benchmarks import reading, sft
from tests.benchmarks.figures import Spread, listed, markdown_table, shown
from tests.benchmarks.reading import (
    REFERENCE,
    Column,
    Figure,
    Record,
    arms,
    beside_naive,
    costs,
    end,
    over_seeds,
    paired,
    shares_rates,
)

ANSWERED = tuple(name for name in sft.FAMILIES if name != sft.EXACT)
"""Families that are scored by the answers' loss; the other one by exact matches."""
MATCHES = f"{sft.EXACT}:exact"


def table(grid: Record) -> str:
    """OP and BWT of the answers' losses, exact matches on scan after its stage and at the end, the general set."""
    own = sft.FAMILIES.index(sft.EXACT)
    columns = (
        Column(head="OP (−loss)", figure=overall_performance, of_base=_performance),
        Column(head="BWT", figure=backward_transfer),
        Column(
            head=f"{sft.EXACT} exact, learned", figure=lambda one: one["stages"][own]["scores"][MATCHES], form=".1%"
        ),
        Column(
            head=f"{sft.EXACT} exact, end",
            figure=lambda one: end(one)[MATCHES],
            form=".1%",
            of_base=lambda scores: scores.get(MATCHES, math.nan),
        ),
        Column(head="general, loss", figure=general, of_base=lambda scores: scores[sft.GENERAL]),
        *costs(),
    )
    return reading.table(grid, columns)


def overall_performance(cell: Record) -> float:
    """Mean over the families with a loss, its sign turned, after the last stage."""
    return _performance(end(cell))


def _performance(scores: Mapping[str, float]) -> float:
    return -statistics.fmean(scores[name] for name in ANSWERED)


def general(cell: Record) -> float:
    """Loss at the end on what nobody trains on."""
    return float(end(cell)[sft.GENERAL])


def backward_transfer(cell: Record) -> float:
    """Mean over the earlier of these families of how much better they are at the end than when they were learned.

    The sum is divided by the families but one (METHODS 9: record which): the last one has nothing to look back on.
    """
    learned = [cell["stages"][sft.FAMILIES.index(name)]["scores"][name] for name in ANSWERED]
    changes = [first - end(cell)[name] for name, first in zip(ANSWERED, learned, strict=True)]
    return float(sum(changes) / (len(changes) - 1))


def families_table(grid: Record) -> str:
    """Loss of each family's answers after its own stage and at the end."""

    def both(arm: str, name: str) -> str:
        stage = sft.FAMILIES.index(name)
        learned = over_seeds(grid, arm, lambda one: one["stages"][stage]["scores"][name])
        return f"{shown(learned)} → {shown(over_seeds(grid, arm, lambda one: end(one)[name]))}"

    rows = ((arm, *(both(arm, name) for name in sft.FAMILIES)) for arm in arms(grid))
    return markdown_table(("arm", *sft.FAMILIES), rows)


def findings(grid: Record) -> str:
    """What did not work, in words."""
    return listed([_behind_naive(grid), _of_general(grid), _of_exact(grid)])


def _behind_naive(grid: Record) -> str:
    """Arms that are no better than naive: at their own rate, but for adapters, which take others."""
    figures = {"OP": overall_performance, "BWT": backward_transfer}
    above = {
        arm: {name: found.mean for name, one in figures.items() if (found := _above_naive(grid, arm, one)).values}
        for arm in arms(grid)
        if arm != REFERENCE
    }
    compared = [arm for arm, found in above.items() if found]
    if not compared:
        return ""
    behind = {name: [arm for arm in compared if above[arm][name] <= 0] for name in figures}
    said = [f"no better than naive in {name}: {', '.join(found)}" for name, found in behind.items() if found]
    text = "; ".join(said) or f"above naive in OP and BWT: {', '.join(compared)}"
    return f"{text[0].upper()}{text[1:]} (naive at the arm's rate; beside adapters, which take others, at its own)."


def _above_naive(grid: Record, arm: str, figure: Figure) -> Spread:
    above = lambda one, naive: figure(one) - figure(naive)  # noqa: E731
    return beside_naive(grid, arm, above) if shares_rates(grid, arm) else paired(grid, arm, REFERENCE, above)


def _of_general(grid: Record) -> str:
    """What is left of what nobody trains on."""
    base = grid["cells"][0]["base"][sft.GENERAL]
    ends = {arm: over_seeds(grid, arm, general) for arm in arms(grid)}
    worse = [arm for arm, found in ends.items() if found.mean > base]
    if not worse:
        return ""
    worst = max(ends, key=lambda arm: ends[arm].mean)
    said = (
        f"On the general set, which nobody trains on, the base's loss is {base:.3f}; worse than that at the end:"
        f" {'every arm' if len(worse) == len(ends) else ', '.join(worse)}, most of all {worst} ({shown(ends[worst])})"
    )
    return f"{said}, whose fall-back to the base should have kept it." if worst == "mos" else f"{said}."


def _of_exact(grid: Record) -> str:
    """Whether anything was answered exactly."""
    found = [stage["scores"].get(MATCHES, 0.0) for cell in grid["cells"] for stage in cell["stages"]]
    return "" if any(found) else f"No arm answers one row of {sft.EXACT} exactly after any stage."
