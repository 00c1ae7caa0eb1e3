"""Tables of one source by year: what each arm ends at, what it forgot of earlier years, and what was expected."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise

from tests.benchmarks.domains import ANCHOR
from tests.benchmarks.figures import Goal, markdown_table, shown
from tests.benchmarks.reading import (
    Column,
    Record,
    arms,
    average,
    cells,
    cost,
    costs,
    measured,
    over_seeds,
    paired,
    table,
)
from tests.benchmarks.text_tables import auto_goal, half_goals, rise

COMPUTE = 1 / 2.6
"""Share of retraining's tokens, at a loss within a hundredth of its."""


def scored_stages(cell: Record) -> dict[int, Record]:
    """Batches so far -> scores, for the stages that were scored."""
    return {int(stage["batches"]): stage["scores"] for stage in cell["stages"] if stage["scores"]}


def years_of(scores: Mapping[str, float]) -> list[str]:
    """The fixed sets of the years, in order."""
    return sorted(name for name in scores if name != ANCHOR)


def so_far(cell: Record, batches: int) -> float:
    """Mean loss over the anchor and the years that have come."""
    return _so_far(batches, scored_stages(cell)[batches])


def _so_far(batches: int, scores: Mapping[str, float]) -> float:
    return statistics.fmean(scores[name] for name in (ANCHOR, *years_of(scores)[:batches]))


def temporal_table(grid: Record) -> str:
    """Average loss over anchor and years so far at every scored year, and cost, of every arm."""
    due = sorted(scored_stages(grid["cells"][0]))
    due = [at for at in due if all(at in scored_stages(cell) for cell in grid["cells"])]
    columns = (
        *(Column(head=f"year {at}", figure=partial(so_far, batches=at), of_base=partial(_so_far, at)) for at in due),
        Column(head="anchor's rise", figure=rise, form=".1%"),
        *costs(),
    )
    return table(grid, columns)


def years_forgotten_table(grid: Record) -> str:
    """Forgetting (max) of the anchor, and of spans of years as they were scored, since each was learned."""
    cell = grid["cells"][0]
    due, years = sorted(scored_stages(cell)), years_of(cell["base"])
    spans: dict[str, tuple[Sequence[str], int]] = {ANCHOR: ((ANCHOR,), 0)}
    for begin, last in pairwise([0, *due[:-1]]):
        spans[f"{years[begin]} to {years[last - 1]}"] = (years[begin:last], last)
    rows = (
        (arm, *(shown(over_seeds(grid, arm, partial(_forgot, names=names, since=at))) for names, at in spans.values()))
        for arm in arms(grid)
    )
    return markdown_table(("arm", *spans), rows)


def _forgot(cell: Record, names: Sequence[str], since: int) -> float:
    """How far sets' mean loss ended above its least before that; since the beginning the base is one of those."""
    scored = scored_stages(cell) if since else {0: cell["base"], **scored_stages(cell)}
    *before, last = (statistics.fmean(scores[name] for name in names) for at, scores in scored.items() if at >= since)
    return last - min(before)


def temporal_goals(grid: Record) -> list[Goal]:
    """What is expected of many small increments."""
    due = sorted(scored_stages(next(iter(cells(grid, "retrain").values()), {"stages": []})))
    worst = lambda a, b: max(so_far(a, at) / so_far(b, at) - 1 for at in due)  # noqa: E731
    found = [
        Goal(
            what="average loss so far, auto above retraining at every fifth year (the worst of them)",
            measured=paired(grid, "auto", "retrain", worst),
            limit=0.01,
        ),
        Goal(
            what="tokens trained on by auto, as a share of retraining's",
            measured=paired(grid, "auto", "retrain", _share_of("tokens")),
            limit=COMPUTE,
        ),
        Goal(
            what="CPU seconds of auto, measuring before its choices included, as a share of retraining's",
            measured=paired(grid, "auto", "retrain", _share_of("cpu_s")),
            limit=COMPUTE,
        ),
        Goal(
            what="average loss at the end: infinite schedule above re-warming",
            measured=paired(grid, "infinite", "replay", lambda a, b: average(a) / average(b) - 1),
            limit=0.0,
        ),
        *half_goals(grid),
        *auto_goal(grid),
    ]
    return measured(found)


def _share_of(what: str) -> Callable[[Record, Record], float]:
    return lambda cell, other: float(cost(cell)[what] / cost(other)[what])


def measuring_words(grid: Record) -> str:
    """How much of auto's time is measuring, which no count of tokens has."""
    if "auto" not in arms(grid):
        return ""
    share = over_seeds(grid, "auto", lambda one: cost(one)["measure_s"] / cost(one)["cpu_s"])
    return (
        f"{shown(share, '.0%')} of `auto`'s CPU seconds are measuring before its choices, which no count of tokens has."
        " Fewer tokens or seconds are an achievement only together with the loss in the first row."
    )


def infinite_words(grid: Record) -> str:
    """The trunk beside re-warming: what it is ahead in, and what it is not."""
    if not {"infinite", "replay"} <= set(arms(grid)):
        return ""
    anchor = partial(_forgot, names=(ANCHOR,), since=0)
    own, other = (shown(over_seeds(grid, arm, anchor)) for arm in ("infinite", "replay"))
    return f"Of the anchor alone the infinite schedule forgot {own}, re-warming {other}."
