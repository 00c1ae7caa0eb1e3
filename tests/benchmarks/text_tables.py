"""What streams of texts are asked alike, domains and years: half fine-tuning, auto, and how much was replayed."""

from __future__ import annotations

import math
from itertools import groupby

from tests.benchmarks.domains import ANCHOR
from tests.benchmarks.figures import Goal, shown
from tests.benchmarks.reading import Record, arms, average, beside_naive, cells, cost, end, paired


def rise(cell: Record, stage: int = -1) -> float:
    """Relative rise of the anchor's loss from the base to the version of a stage."""
    return float(cell["stages"][stage]["scores"][ANCHOR] / cell["base"][ANCHOR] - 1)


def share_of_rise(cell: Record, other: Record, stage: int = -1) -> float:
    """The anchor's rise as a share of another cell's; NaN where that one forgot nothing."""
    return rise(cell, stage) / rise(other, stage) if rise(other, stage) > 0 else math.nan


def half_goals(grid: Record) -> list[Goal]:
    """Half fine-tuning beside naive, and with replay beside replay alone, where both run at one rate."""
    found = [
        Goal(
            what="anchor's rise at the end: half's share of naive's",
            measured=beside_naive(grid, "half", share_of_rise),
            limit=0.90,
        )
    ]
    if not _at_other_rates(grid):
        halves = paired(grid, "half, replay", "replay", lambda a, b: rise(a) - rise(b))
        what = "anchor's rise at the end: half with replay less replay alone, at one rate"
        found.append(Goal(what=what, measured=halves, limit=0.0))
    return found


def half_words(grid: Record) -> str:
    """Why half with replay is not compared with replay, where it is not."""
    rates = _at_other_rates(grid)
    return f"Not compared: half with replay and replay alone, at rates of {' and '.join(rates)}." if rates else ""


def _at_other_rates(grid: Record) -> list[str]:
    rates = [grid["rates"][arm] for arm in ("half, replay", "replay") if arm in grid["rates"]]
    return [f"{one:g}" for one in rates] if len(set(rates)) > 1 else []


def auto_goal(grid: Record) -> list[Goal]:
    """Auto beside the best single choice, over the seeds of both; retraining on everything is none."""
    best = _best_choice(grid)
    if best is None:
        return []
    what = f"average loss at the end: auto above the best single choice ({best})"
    return [Goal(what=what, measured=paired(grid, "auto", best, _above), limit=0.01)]


def auto_words(grid: Record, *, rules_from_it: bool = True) -> str:
    """What the row of auto's goal does not show by itself; whether its rules have figures of these cells."""
    best, said = _best_choice(grid), []
    if best is None:
        return ""
    auto, single = cells(grid, "auto"), cells(grid, best)
    if all(end(auto[seed]) == end(single[seed]) for seed in auto.keys() & single.keys()):
        chose = f"`auto` chose what `{best}` is at every stage, so that its row beside the best single choice holds by"
        judged = "; and the rule that chose so has its figures from these very cells." if rules_from_it else "."
        said.append(f"{chose} construction{judged}")
    above = paired(grid, "auto", "retrain", _above)
    if above.values:
        times = paired(grid, "retrain", "auto", lambda a, b: cost(a)["tokens"] / cost(b)["tokens"])
        said.append(
            f"`retrain`, which trains on {times.mean:.1f} times the tokens, does not count as a single choice: `auto`"
            f" ends {shown(above, '.1%')} above it."
        )
    return " ".join(said)


def _best_choice(grid: Record) -> str | None:
    single = [arm for arm in arms(grid) if arm not in ("auto", "retrain")]
    above = {arm: paired(grid, "auto", arm, _above) for arm in single}
    there = [arm for arm in single if above[arm].values]
    return max(there, key=lambda arm: above[arm].mean) if there else None


def _above(cell: Record, other: Record) -> float:
    """How far the average loss at the end is above another cell's, relative."""
    return average(cell) / average(other) - 1


def old_shares(grid: Record) -> str:
    """Which share of old rows each arm that replays took, stage by stage, in words."""
    said: dict[str, list[str]] = {}
    for arm in arms(grid):
        words = " or ".join(dict.fromkeys(filter(None, map(_shares, cells(grid, arm).values()))))
        if words:
            said.setdefault(words, []).append(f"`{arm}`")
    listed = "; ".join(f"{', '.join(names)}: {words}" for words, names in said.items())
    return f"Share of old rows in every step: {listed}." if said else ""


def _shares(cell: Record) -> str:
    """``25 %, 50 % from reviews-en on``; nothing where no stage replays."""
    stages = [(stage["name"], stage.get("values", {}).get("replay", 0.0)) for stage in cell["stages"]]
    if not any(share for _, share in stages):
        return ""
    parts = [(share, next(some)[0]) for share, some in groupby(stages, key=lambda one: one[1])]
    first, *later = [f"{share:.0%}" + (f" from {name} on" if at else "") for at, (share, name) in enumerate(parts)]
    return ", ".join([first, *later])
