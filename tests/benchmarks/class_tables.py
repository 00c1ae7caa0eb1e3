"""Tables of classes that come in tasks: accuracy over all classes so far, and mos beside what it is to beat."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from strategies import metrics
from tests.benchmarks.classes import JOINT, NEAREST, RELEASED
from tests.benchmarks.figures import Goal, Spread
from tests.benchmarks.reading import (
    Column,
    Record,
    arms,
    average,
    costs,
    end,
    measured,
    over_seeds,
    paired,
    table,
)


def class_table(grid: Record) -> str:
    """Final and average accuracy, and forgetting, over all classes so far."""
    columns = (
        Column(head="final", figure=average, form=".1%"),
        Column(head="average over stages", figure=partial(_of_stages, metrics.average_over_time), form=".1%"),
        Column(head="forgetting", figure=partial(_of_stages, metrics.forgetting), form=".1%"),
        *costs()[1:],
    )
    return table(grid, columns)


def _of_stages(figure: Callable[[np.ndarray], float], cell: Record) -> float:
    """NaN for what was trained once, at the end: it has no stages to look back on."""
    return figure(accuracies(cell)) if len(cell["stages"]) > 1 else math.nan


def accuracies(cell: Record) -> np.ndarray:
    """Stages × tasks; a task that has not come yet counts as 0, above which every best of it is."""
    names = list(end(cell))
    return np.array([[stage["scores"].get(name, 0.0) for name in names] for stage in cell["stages"]])


def behind_released(grid: Record) -> Spread:
    """How much lower mos ends than its released form, which merges inside the forward pass."""
    return paired(grid, "mos", RELEASED, lambda a, b: average(b) - average(a))


def joint_arms(grid: Record) -> list[str]:
    """Ways to train on everything at the last stage."""
    return [arm for arm in arms(grid) if arm.startswith(JOINT)]


def upper_bound(grid: Record) -> str | None:
    """The better way of joint training, if it is above nearest mean: of too few documents or passes it is none."""
    best = max(joint_arms(grid), key=lambda arm: over_seeds(grid, arm, average).mean, default=None)
    if best is None:
        return None
    above = paired(grid, best, NEAREST, lambda a, b: average(a) - average(b))
    return best if all(value > 0 for value in above.values) else None


def class_goals(grid: Record, *, near_joint: bool) -> list[Goal]:
    """mos beats both baselines; on clinc150 it comes near joint training, where that is an upper bound."""
    behind = lambda a, b: average(b) - average(a)  # noqa: E731
    found = [
        Goal(
            what=f"final accuracy: mos behind {other}",
            measured=paired(grid, "mos", other, behind),
            limit=0.0,
            strict=True,
        )
        for other in ("lora", NEAREST)
    ]
    if near_joint and (bound := upper_bound(grid)):
        found.append(
            Goal(what=f"final accuracy: mos behind {bound}", measured=paired(grid, "mos", bound, behind), limit=0.05)
        )
    return measured(found)
