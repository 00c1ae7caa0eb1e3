"""Linear warm-up and cosine decay (Ibrahim et al. 2024, arXiv 2403.08763)."""

from __future__ import annotations

import math

from strategies.errors import BadPlan
from strategies.parts import CosineSchedule


def rate(schedule: CosineSchedule, step: int) -> float:
    """Learning rate of the ``step``-th optimizer step (1-based); ``min_lr`` once ``steps`` are over."""
    if step > schedule.steps:
        return schedule.min_lr
    if step <= schedule.warmup:
        start = _start(schedule)
        return start + (schedule.lr - start) * step / schedule.warmup
    turn = math.pi * (step - schedule.warmup) / (schedule.steps - schedule.warmup)
    return schedule.min_lr + (schedule.lr - schedule.min_lr) / 2 * (1 + math.cos(turn))


def _start(schedule: CosineSchedule) -> float:
    if schedule.warmup_start == "zero":
        return 0.0
    if schedule.warmup_start == "eta_min":
        return schedule.min_lr
    if schedule.last_lr is None:
        raise BadPlan("warmup_start is last_lr but the schedule has no last_lr; give it, or warm up from zero")
    return schedule.last_lr
