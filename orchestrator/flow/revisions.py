"""Revisions of a stream's settings, and the trigger rows that follow them."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.flow import records
from orchestrator.settings import StreamSettings
from storage.moves import move
from storage.tables import Stream, StreamRevision, Trigger, Version


def follow_base(app: App, session: Session, stream: Stream, root: Version, actor: str) -> None:
    """The settings name the base that the live version stems from: after a rebase, and after a rollback over one."""
    settings = records.settings_of(session, stream.id)
    base = {"model": root.facts.get("source", settings.model), "revision": root.facts.get("revision")}
    if base != {"model": settings.model, "revision": settings.revision}:
        changed = settings.model_copy(update=base)
        origins = {**records.revision_of(session, stream.id).origins, "model": f"version {root.number}"}
        add(app, session, stream, changed, origins=origins, actor=actor)


def add(
    app: App, session: Session, stream: Stream, settings: StreamSettings, *, origins: dict[str, str], actor: str
) -> None:
    """Write the settings down as the stream's next revision; its triggers follow."""
    last = session.scalar(
        select(StreamRevision.number)
        .where(StreamRevision.stream_id == stream.id)
        .order_by(StreamRevision.number.desc())
        .limit(1)
    )
    values = settings.model_dump(mode="json")
    session.add(
        StreamRevision(
            stream_id=stream.id,
            number=(last or 0) + 1,
            settings=values,
            origins=dict(origins),
            settings_hash=records.fingerprint(values),
            actor=actor,
            created_at=app.clock.now(),
        )
    )
    _sync_triggers(app, session, stream, settings, actor)


def _sync_triggers(app: App, session: Session, stream: Stream, settings: StreamSettings, actor: str) -> None:
    """The trigger rows follow the settings; a changed trigger starts its count anew."""
    rows = {row.name: row for row in session.scalars(select(Trigger).where(Trigger.stream_id == stream.id))}
    for trigger in settings.triggers:
        values = trigger.model_dump(mode="json")
        row = rows.pop(trigger.name, None)
        if row is None:
            row = Trigger(
                stream_id=stream.id, name=trigger.name, state="active", settings={}, kind=trigger.kind, timezone=""
            )
            row.created_at = app.clock.now()
            session.add(row)
        elif row.state == "removed":
            move(session, row, "active", actor=actor, reason="set again", epoch=app.epoch)
        if (row.settings, row.timezone) != (values, settings.timezone):
            row.settings, row.timezone, row.kind, row.next_at = values, settings.timezone, trigger.kind, None
    for row in rows.values():
        if row.state != "removed":
            move(session, row, "removed", actor=actor, reason="no longer in the settings", epoch=app.epoch)
