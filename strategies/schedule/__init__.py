"""How fast parameters move: one file a schedule, listed here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from strategies.parts import CosineSchedule, InfiniteSchedule, Schedule
from strategies.schedule import cosine, infinite

SCHEDULES: dict[type[Schedule], Callable[[Any, int], float]] = {
    CosineSchedule: cosine.rate,
    InfiniteSchedule: infinite.rate,
}


def rate(schedule: Schedule, step: int) -> float:
    """Learning rate of optimizer step ``step``, which counts from 1; out of range it is clamped, never wrapped."""
    return SCHEDULES[type(schedule)](schedule, max(1, step))


def factor(schedule: Schedule, step: int) -> float:
    """:func:`rate` over the schedule's peak, to multiply each parameter group's own base rate."""
    return rate(schedule, step) / schedule.lr


__all__ = ["SCHEDULES", "factor", "rate"]
