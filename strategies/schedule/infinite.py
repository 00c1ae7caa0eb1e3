"""Infinite schedule: warm-up, cooldown, constant, anneal (Ibrahim et al. 2024, arXiv 2403.08763)."""

from __future__ import annotations

import math

from strategies.parts import InfiniteSchedule


def rate(schedule: InfiniteSchedule, step: int) -> float:
    """Learning rate of the ``step``-th optimizer step (1-based); the last phase's end once all phases are over.

    Phases are lengths in steps, counted from the end of the phase before. No rate is below ``min_lr``.
    """
    return max(_phase_rate(schedule, step), schedule.min_lr)


def _phase_rate(schedule: InfiniteSchedule, step: int) -> float:
    if step <= schedule.warmup:
        return schedule.lr * step / schedule.warmup
    since = step - schedule.warmup
    if since <= schedule.cooldown:
        return _cooldown(schedule, since / schedule.cooldown)
    since -= schedule.cooldown + schedule.constant
    if since <= 0 or schedule.anneal == 0:
        return schedule.constant_lr
    share = min(since / schedule.anneal, 1.0)
    return float(schedule.constant_lr * (schedule.min_lr / schedule.constant_lr) ** share)


def _cooldown(schedule: InfiniteSchedule, share: float) -> float:
    peak, constant = schedule.lr, schedule.constant_lr
    if schedule.style == "cosine":
        return constant + (peak - constant) / 2 * (1 + math.cos(math.pi * share))
    if schedule.style == "linear":
        return peak - (peak - constant) * share
    return peak + (constant - peak) * _rsqrt(schedule, share) / _rsqrt(schedule, 1.0)


def _rsqrt(schedule: InfiniteSchedule, share: float) -> float:
    return 1 / math.sqrt(1 + schedule.timescale * share) - 1
