"""Data-amount trigger: as soon as enough new documents are pending."""

from __future__ import annotations

from datetime import datetime

from orchestrator.settings import AmountTrigger as AmountTriggerSettings
from orchestrator.triggers.contract import Facts, Opinion


class AmountTrigger:
    """Due whenever the pending training documents reach the amount."""

    timed = False

    def __init__(self, settings: AmountTriggerSettings, timezone: str) -> None:
        self._documents = settings.documents

    def next_after(self, after: datetime, *, start: datetime) -> datetime | None:
        """It has no instants of its own."""
        return None

    def judge(self, facts: Facts) -> Opinion:
        """Retrain once the amount is there."""
        enough = facts.pending_documents >= self._documents
        return Opinion(
            retrain=enough,
            reason=f"{facts.pending_documents} pending training documents, {self._documents} "
            + ("suffice" if enough else "are needed"),
        )
