"""Triggers with their next fire and last verdict."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchestrator import triggers as kinds
from orchestrator.app import App
from orchestrator.errors import NotFound
from orchestrator.flow import trigger as flow
from orchestrator.service.records import TriggerRecord, TriggerTest
from orchestrator.service.views import common
from storage.tables import Firing, Stream, Trigger

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRES_SHOWN = 5


def list_triggers(app: App, *, stream: str | None) -> list[TriggerRecord]:
    """The triggers of one stream, or of all that are not archived."""
    with app.database.read() as session:
        if stream is not None:
            return trigger_records(session, [common.find_stream(session, stream)])
        streams = session.scalars(select(Stream).where(Stream.archived_at.is_(None)).order_by(Stream.name)).all()
        return trigger_records(session, streams)


def trigger_records(session: Session, streams: Sequence[Stream]) -> list[TriggerRecord]:
    """The triggers of several streams, in two queries."""
    names = {stream.id: stream.name for stream in streams}
    rows = session.scalars(
        select(Trigger).where(Trigger.stream_id.in_(names), Trigger.state != "removed").order_by(Trigger.id)
    ).all()
    last = _last_firings(session, [row.id for row in rows])
    return [_record(row, stream=names[row.stream_id], last=last.get(row.id)) for row in rows]


def find_triggers(session: Session, stream: Stream, name: str | None) -> list[Trigger]:
    """The named trigger, or all of the stream's.

    Raises:
        NotFound: there is none.
    """
    query = select(Trigger).where(Trigger.stream_id == stream.id, Trigger.state != "removed").order_by(Trigger.id)
    found = list(session.scalars(query if name is None else query.where(Trigger.name == name)))
    if not found:
        what = "no trigger" if name is None else f"no trigger {name!r}"
        raise NotFound(f"stream {stream.name!r} has {what}; `rekindle trigger list {stream.name}` shows those it has")
    return found


def try_triggers(app: App, stream: str, name: str | None) -> list[TriggerTest]:
    """What the triggers would say now, and when they fire next; nothing is started."""
    with app.database.read() as session:
        owner = common.find_stream(session, stream)
        facts = flow.facts_of(session, owner)
        return [
            _test(row, stream=stream, facts=facts, at=app.clock.now()) for row in find_triggers(session, owner, name)
        ]


def _test(row: Trigger, *, stream: str, facts: kinds.Facts, at: datetime) -> TriggerTest:
    trigger = kinds.build(flow.SETTINGS.validate_python(row.settings), row.timezone)
    opinion = trigger.judge(facts)
    fires = tuple(islice(_fires(trigger, at=at, start=row.created_at), FIRES_SHOWN)) if trigger.timed else ()
    return TriggerTest(
        stream=stream, name=row.name, kind=row.kind, retrain=opinion.retrain, reason=opinion.reason, next_fires=fires
    )


def _fires(trigger: kinds.Trigger, *, at: datetime, start: datetime) -> Iterator[datetime]:
    after: datetime | None = at
    while after is not None and (after := trigger.next_after(after, start=start)) is not None:
        yield after


def _last_firings(session: Session, ids: list[int]) -> dict[int, Firing]:
    newest = select(func.max(Firing.id)).where(Firing.trigger_id.in_(ids)).group_by(Firing.trigger_id)
    return {row.trigger_id: row for row in session.scalars(select(Firing).where(Firing.id.in_(newest)))}


def _record(row: Trigger, *, stream: str, last: Firing | None) -> TriggerRecord:
    return TriggerRecord(
        stream=stream,
        name=row.name,
        kind=row.kind,
        state=row.state,
        settings=row.settings,
        timezone=row.timezone,
        next_fire=row.next_at if row.state == "active" else None,
        last_due=None if last is None else last.due_at,
        last_verdict=None if last is None else last.verdict,
        last_reason=None if last is None else last.reason,
    )
