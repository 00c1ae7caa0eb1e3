"""Interval trigger: every so many seconds since the trigger was made."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from orchestrator.settings import IntervalTrigger as IntervalTriggerSettings
from orchestrator.triggers.contract import Facts, Opinion, on_pending_data


class IntervalTrigger:
    """Due at start + k * every_seconds; the grid does not move when a firing is late."""

    timed = True

    def __init__(self, settings: IntervalTriggerSettings, timezone: str) -> None:
        self._every_s = settings.every_seconds

    def next_after(self, after: datetime, *, start: datetime) -> datetime | None:
        """The first instant of the grid later than ``after``."""
        passed = math.floor((after - start).total_seconds() / self._every_s)
        return start + timedelta(seconds=max(1, passed + 1) * self._every_s)

    def judge(self, facts: Facts) -> Opinion:
        """Retrain if anything new is there."""
        return on_pending_data(facts)
