"""Cron trigger: a five-field expression, read in the stream's time zone."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from apscheduler.triggers.cron import CronTrigger as Expression

from orchestrator.settings import CronTrigger as CronTriggerSettings
from orchestrator.triggers.contract import Facts, Opinion, on_pending_data


class CronTrigger:
    """Due at each instant of the expression.

    Raises:
        ValueError: the expression does not parse.
    """

    timed = True

    def __init__(self, settings: CronTriggerSettings, timezone: str) -> None:
        fields = len(settings.cron.split())
        if fields != 5:
            raise ValueError(f"five fields are needed, not {fields}, e.g. 0 3 * * *")
        self._expression = Expression.from_crontab(settings.cron, timezone=ZoneInfo(timezone))

    def next_after(self, after: datetime, *, start: datetime) -> datetime | None:
        """The first instant of the expression later than ``after``."""
        found: datetime | None = self._expression.get_next_fire_time(after, after)
        return None if found is None else found.astimezone(UTC)

    def judge(self, facts: Facts) -> Opinion:
        """Retrain if anything new is there."""
        return on_pending_data(facts)
