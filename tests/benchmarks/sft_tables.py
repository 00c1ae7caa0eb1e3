"""Tables of instruction tuning: what was learned of each family, and what of it is left at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.benchmarks import sft
from tests.benchmarks.figures import markdown_table, shown
from tests.benchmarks.tables import arms, average, cost, end, over_seeds

Record = dict[str, Any]
ANSWERED = tuple(name for name in sft.FAMILIES if name != sft.EXACT)
"""Families that are scored by the answers' loss; the other one by exact matches."""


def table(grid: Record) -> str:
    """OP and BWT of the answers' losses, exact matches on scan after its stage and at the end, the general set."""
    exact = f"{sft.EXACT}:exact"
    own = sft.FAMILIES.index(sft.EXACT)
    figures: list[tuple[str, str, Callable[[Record], float]]] = [
        ("OP (−loss)", ".3f", overall_performance),
        ("BWT", ".3f", backward_transfer),
        (f"{sft.EXACT} exact, learned", ".1%", lambda one: one["stages"][own]["scores"][exact]),
        (f"{sft.EXACT} exact, end", ".1%", lambda one: end(one)[exact]),
        ("general, loss", ".3f", lambda one: end(one)[sft.GENERAL]),
        ("tokens", ",.0f", lambda one: cost(one)["tokens"]),
        ("CPU s", ",.0f", lambda one: cost(one)["cpu_s"]),
    ]
    rows = (
        (arm, f"{grid['rates'][arm]:g}", *(shown(over_seeds(grid, arm, one), form) for _, form, one in figures))
        for arm in arms(grid)
    )
    return markdown_table(("arm", "rate", *(name for name, _, _ in figures)), rows)


def overall_performance(cell: Record) -> float:
    """Mean over the families with a loss, its sign turned, after the last stage."""
    return -average(cell, names=ANSWERED)


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
    """What did not work: arms that are no better than naive, in words."""
    figures = {"OP": overall_performance, "BWT": backward_transfer}
    behind = {
        name: [
            arm
            for arm in arms(grid)
            if arm != "naive" and over_seeds(grid, arm, one).mean <= over_seeds(grid, "naive", one).mean
        ]
        for name, one in figures.items()
    }
    said = [f"no better than naive in {name}: {', '.join(found)}" for name, found in behind.items() if found]
    text = "; ".join(said) or "every arm is above naive in OP and BWT"
    return text[0].upper() + text[1:] + "."
