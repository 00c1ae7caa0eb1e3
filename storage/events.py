"""The log of everything that happened, with its actor."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from storage import chain
from storage.tables import Event


def record(
    session: Session,
    *,
    stream_id: str | None,
    subject: str,
    subject_id: int | str,
    action: str,
    actor: str,
    reason: str,
    details: dict[str, Any] | None = None,
    from_state: str | None = None,
    to_state: str | None = None,
) -> Event:
    """Write one event in the session's transaction; moves give both states."""
    event = Event(
        stream_id=stream_id,
        subject=subject,
        subject_id=str(subject_id),
        action=action,
        from_state=from_state,
        to_state=to_state,
        actor=actor,
        reason=reason,
        details=details or {},
    )
    return chain.append(session, event)
