"""The contract of a trigger: when is it due, and is there reason to retrain.

A trigger is pure: settings and facts in, an instant or a verdict out. The flow stores both, one row for a trigger and
an instant. A timed trigger names its next instant; an untimed one is asked at every turn and is due when it says so.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from strategies.settings import Closed


class Facts(Closed):
    """What a trigger may look at."""

    pending_batches: int
    pending_documents: int


class Opinion(Closed):
    """Whether to retrain, and why."""

    retrain: bool
    reason: str


class Trigger(Protocol):
    """One kind of trigger."""

    timed: bool
    """Whether the trigger has instants of its own."""

    def next_after(self, after: datetime, *, start: datetime) -> datetime | None:
        """The first instant later than ``after`` (aware UTC); ``start`` is when the trigger was made."""

    def judge(self, facts: Facts) -> Opinion:
        """Whether there is reason to retrain now."""


def on_pending_data(facts: Facts) -> Opinion:
    """The opinion all timed triggers share: retrain if anything new is there."""
    if facts.pending_batches == 0:
        return Opinion(retrain=False, reason="no new data is pending")
    return Opinion(
        retrain=True,
        reason=f"{facts.pending_batches} pending batches with {facts.pending_documents} training documents",
    )
