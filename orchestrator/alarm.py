"""The alarm clock: wakes the daemon's loop at the next trigger's instant.

APScheduler keeps one entry in memory and nothing else; what is due is decided by the rows of the triggers table.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.date import DateTrigger


class AlarmClock:
    """Calls ``ring`` at one instant, which may be set anew at any time."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._at: datetime | None = None
        self._scheduler = BackgroundScheduler(
            timezone=UTC, job_defaults={"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
        )
        self._scheduler.start()

    def set(self, at: datetime | None) -> None:
        """Ring at ``at`` instead of at the instant that was set before; None: do not ring."""
        if at == self._at:
            return
        self._at = at
        self._scheduler.remove_all_jobs()
        if at is not None:
            self._scheduler.add_job(self._ring, DateTrigger(run_date=at), id="next")

    def close(self) -> None:
        """Stop ringing."""
        self._scheduler.shutdown(wait=False)
