"""What a user should see to, written into the log of events: the same thing at most once a day."""

from __future__ import annotations

from datetime import timedelta

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from storage import events
from storage.tables import Event

AGAIN_AFTER = timedelta(days=1)
log = structlog.get_logger()


def alert(app: App, reason: str, *, stream_id: str | None) -> None:
    """Record an alert on a stream, or with None on the store that all share."""
    log.warning("something needs attention", action="alert", stream_id=stream_id, reason=reason)
    subject, subject_id = ("store", "store") if stream_id is None else ("stream", stream_id)
    said = select(Event.id).where(
        Event.subject == subject,
        Event.subject_id == subject_id,
        Event.action == "alert",
        Event.reason == reason,
        Event.created_at > app.clock.now() - AGAIN_AFTER,
    )
    with app.database.write() as session:
        if session.scalar(said.limit(1)) is None:
            write(session, stream_id=stream_id, subject=subject, subject_id=subject_id, reason=reason)


def write(session: Session, *, stream_id: str | None, subject: str, subject_id: str, reason: str) -> None:
    """The alert's event, within the transaction that it belongs to."""
    events.record(
        session,
        stream_id=stream_id,
        subject=subject,
        subject_id=subject_id,
        action="alert",
        actor="daemon",
        reason=reason,
    )
