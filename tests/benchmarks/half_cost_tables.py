"""What half fine-tuning saves, beside what was promised."""

from __future__ import annotations

from tests.benchmarks.figures import Goal, Spread, goals_table, markdown_table
from tests.benchmarks.half_cost import MEMORY_GOAL
from tests.benchmarks.reading import Record

TIME_GOAL = 0.70
"""Of a full step, for the variant that freezes from the bottom."""
FEW_PAIRS = 6
"""Of fewer, the bootstrap's interval of the median is no narrower than their range."""


def half_cost_table(found: Record) -> str:
    """Step time and optimizer memory over full fine-tuning's, beside what was promised."""
    places = [
        (f"{device}, {one['parameters'] / 1e6:.0f} M", one["arms"])
        for device, sizes in found["measured"]["sizes"].items()
        for one in sizes.values()
    ]
    rows = [_half_row(where, arm, figures) for where, arms in places for arm, figures in arms.items()]
    head = ("where", "what moves", "step over full", "bound", "optimizer memory over full", "trainable share + 0.02")
    pairs = {len(figures["step_ratio"]["values"]) for _, arms in places for figures in arms.values()}
    interval = "its 95 % bootstrap interval" if min(pairs) >= FEW_PAIRS else "the least and the greatest"
    words = (
        f"A step's time is the median of {max(pairs)} pairs of runs, each of one turn, with {interval} in brackets. The"
        " bound is of a step's products alone. What the optimizer and the clipping spare where nothing"
        " moves comes on top, so that a step may take less than its bound. What the bottom variant costs in quality is"
        " said with the domains (`half, bottom`)."
    )
    goals = [goal for where, arms in places for goal in _half_goals(where, arms)]
    return f"{words}\n\n{markdown_table(head, rows)}\n\n{goals_table(goals)}"


def _half_goals(where: str, arms: Record) -> list[Goal]:
    """A real 30 % of time from the bottom up; memory of what moves alone."""
    times = {arm: figures["step_ratio"]["median"] for arm, figures in arms.items() if arm == "bottom"}
    memory = {
        arm: (figures["optimizer_ratio"], figures["trainable_share"] + MEMORY_GOAL)
        for arm, figures in arms.items()
        if arm != "full"
    }
    return [
        *(_goal(f"{where}: step of `{arm}` over full", median, TIME_GOAL) for arm, median in times.items()),
        *(_goal(f"{where}: optimizer memory of `{arm}` over full", *found) for arm, found in memory.items()),
    ]


def _goal(what: str, measured: float, limit: float) -> Goal:
    return Goal(what=what, measured=Spread(values=(measured,)), limit=limit)


def _half_row(where: str, arm: str, figures: Record) -> tuple[str, ...]:
    step = figures["step_ratio"]
    return (
        where,
        arm,
        f"{step['median']:.3f} ({step['low']:.3f} to {step['high']:.3f})",
        f"{figures['step_bound']:.3f}",
        f"{figures['optimizer_ratio']:.3f}",
        f"{min(1.0, figures['trainable_share'] + MEMORY_GOAL):.3f}",
    )
