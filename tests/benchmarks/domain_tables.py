"""Tables of domains in turn: what each arm ends at, what it forgot of each domain, and what was expected."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from functools import partial

from strategies import metrics
from tests.benchmarks.domains import ANCHOR, DOMAINS
from tests.benchmarks.figures import Goal, Spread, markdown_table, shown
from tests.benchmarks.reading import (
    Column,
    Figure,
    Record,
    arms,
    average,
    beside_naive,
    costs,
    measured,
    over_seeds,
    paired,
    scores_matrix,
    stages_of,
    table,
)
from tests.benchmarks.text_tables import auto_goal, half_goals, rise, share_of_rise

STRONG = DOMAINS[-2:]
WEAK = DOMAINS[0]
BOTTOM = "half, bottom"
REPLAY = "replay"


def domains_table(grid: Record) -> str:
    """Average loss at the end, forgetting and cost of every arm."""
    names = stages_of(grid)
    columns = (
        Column(head="average loss", figure=average, of_base=lambda base: statistics.fmean(base.values())),
        Column(head="anchor's rise", figure=rise, form=".1%"),
        Column(head="forgetting", figure=lambda one: metrics.forgetting(scores_matrix(one, names))),
        Column(head="own loss", figure=lambda one: own_loss(one, names)),
        *costs(),
    )
    return table(grid, columns)


def own_loss(cell: Record, names: list[str]) -> float:
    """Mean loss on each domain right after its stage."""
    return -metrics.plasticity(scores_matrix(cell, names))


def forgetting_table(grid: Record) -> str:
    """Forgetting (max) of each domain but the last, whose mean is the column of the table; of the anchor besides."""
    sets = (ANCHOR, *stages_of(grid)[:-1])
    rows = ((arm, *(shown(over_seeds(grid, arm, _forgot(name))) for name in sets)) for arm in arms(grid))
    return markdown_table(("arm", *sets), rows)


def _forgot(name: str) -> Figure:
    def figure(cell: Record) -> float:
        *before, last = (stage["scores"][name] for stage in cell["stages"])
        return float(last - min([*before, cell["base"][name]] if name == ANCHOR else before))

    return figure


def domain_goals(grid: Record) -> list[Goal]:
    """What the papers and first trials led to expect of the domains, as far as the grid has the arms and stages."""
    names = stages_of(grid)
    found = [
        goal
        for name in STRONG
        if name in names
        for arm in ("replay", "replay 25 %")
        for goal in _replay_goals(grid, arm, name, names.index(name))
    ]
    found += [
        Goal(
            what=f"anchor's rise after {WEAK}: share of naive's at {share}",
            measured=beside_naive(grid, f"replay {share}", partial(share_of_rise, stage=0)),
            limit=limit,
        )
        for share, limit in (("5 %", 0.60), ("25 %", 1 / 3))
    ]
    return measured([*found, *half_goals(grid), *auto_goal(grid)])


def _replay_goals(grid: Record, arm: str, name: str, stage: int) -> tuple[Goal, Goal]:
    """Of a strong shift: what is left of naive's forgetting, and what that costs of the new domain."""

    def above(cell: Record, other: Record) -> float:
        return float(cell["stages"][stage]["scores"][name] / other["stages"][stage]["scores"][name] - 1)

    return (
        Goal(
            what=f"anchor's rise after {name}: share of naive's with {arm}",
            measured=beside_naive(grid, arm, partial(share_of_rise, stage=stage)),
            limit=0.10,
        ),
        Goal(
            what=f"loss on {name} at its own stage: {arm} above naive",
            measured=beside_naive(grid, arm, above),
            limit=0.01,
        ),
    )


def standing_words(grid: Record) -> str:
    """Which arms end below plain replay in the mean over the seeds of both, and which are worth less than the base."""
    names = arms(grid)
    ahead = [one for one in names if one != REPLAY and _above(paired(grid, one, REPLAY, _ratio)) < 0]
    worse = [one for one in names if _above(over_seeds(grid, one, _over_base)) > 0]
    found = [f"Below `{REPLAY}` in average loss at the end: {_quoted(ahead)}." if ahead else ""]
    found.append(f"Above the base, which was trained on nothing: {_quoted(worse)}." if worse else "")
    return " ".join(filter(None, found))


def _above(ratios: Spread) -> float:
    """How far ratios are above 1 in the mean; nothing where there are none."""
    return ratios.mean - 1 if ratios.values else 0.0


def _ratio(cell: Record, other: Record) -> float:
    return average(cell) / average(other)


def _over_base(cell: Record) -> float:
    return average(cell) / statistics.fmean(cell["base"].values())


def _quoted(names: Sequence[str]) -> str:
    return " | ".join(f"`{name}`" for name in names)


def bottom_words(grid: Record) -> str:
    """What freezing from the bottom costs in quality, beside half and beside naive at its rate."""
    if BOTTOM not in arms(grid):
        return ""
    alike = grid["rates"].get("half") == grid["rates"][BOTTOM]
    beside = {
        f"`half` at {'the same' if alike else 'another'} rate": partial(paired, grid, BOTTOM, "half"),
        "naive at the same rate": partial(beside_naive, grid, BOTTOM),
    }
    found = {other: _quality(pairs, stages_of(grid)) for other, pairs in beside.items()}
    said = "; ".join(f"beside {other}: {words}" for other, words in found.items() if words)
    return f"What freezing from the bottom (`{BOTTOM}`) costs in quality, {said}." if said else ""


def _quality(pairs: Callable[[Callable[[Record, Record], float]], Spread], names: list[str]) -> str:
    """How an arm stands to another, in words; nothing where they share no seed."""
    own = pairs(lambda a, b: own_loss(a, names) / own_loss(b, names) - 1)
    ends = pairs(lambda a, b: average(a) / average(b) - 1)
    rises = pairs(lambda a, b: 100 * (rise(a) - rise(b)))
    if not own.values:
        return ""
    above = f"own loss {own.mean:+.1%}, average loss at the end {ends.mean:+.1%}"
    return f"{above}, the anchor's rise {rises.mean:+.1f} points"
