"""The only way a record changes state: a conditional update and its event, in one transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table, exc, exists, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from storage import events
from storage.database import now
from storage.errors import IllegalMove, LeaseLost, StaleRecord
from storage.leases import LEADER
from storage.states import is_legal
from storage.tables import Batch, Decision, Job, Lease, Plan, Stream, Trigger, Version

Movable = Stream | Batch | Trigger | Decision | Plan | Job | Version

STAMPS: dict[tuple[str, str], str] = {
    ("stream", "archived"): "archived_at",
    ("decision", "decided"): "decided_at",
    ("decision", "closed"): "closed_at",
    ("plan", "succeeded"): "closed_at",
    ("plan", "failed"): "closed_at",
    ("plan", "cancelled"): "closed_at",
    ("plan", "stale"): "closed_at",
}
"""Columns that a move fills with the present time unless the caller gives a value."""


def move(
    session: Session,
    record: Movable,
    to: str,
    *,
    actor: str,
    reason: str,
    epoch: int | None = None,
    details: dict[str, Any] | None = None,
    **values: Any,
) -> None:
    """Move ``record`` to state ``to`` if it still is where the caller saw it, set ``values``, and write the event.

    ``epoch`` is the leader's, given by the daemon: a process that no longer leads changes nothing. ``record`` may come
    from an earlier session; it is updated in place.

    Raises:
        IllegalMove: the table of moves does not have this one.
        StaleRecord: the record was moved by someone else, or a constraint leaves no room for it there.
        LeaseLost: another process leads; a kind of StaleRecord.
    """
    subject = type(record).__name__.lower()
    start = record.state
    if not is_legal(subject, start, to):
        raise IllegalMove(subject=subject, subject_id=record.id, start=start, finish=to)
    if (stamp := STAMPS.get((subject, to))) is not None:
        values.setdefault(stamp, now())
    values["state"] = to
    _update(session, record, values, epoch)
    events.record(
        session,
        stream_id=record.id if isinstance(record, Stream) else record.stream_id,
        subject=subject,
        subject_id=record.id,
        action="move",
        actor=actor,
        reason=reason,
        details=details,
        from_state=start,
        to_state=to,
    )


def _update(session: Session, record: Movable, values: dict[str, Any], epoch: int | None) -> None:
    session.flush()
    table = type(record).__table__
    assert isinstance(table, Table)
    statement = update(table).where(table.c.id == record.id, table.c.state == record.state).values(values)
    if epoch is not None:
        statement = statement.where(exists().where(Lease.name == LEADER, Lease.epoch == epoch))
    try:
        changed = session.connection().execute(statement).rowcount
    except exc.IntegrityError as error:
        raise StaleRecord(f"{_name(record)} cannot become {values['state']}: another one is there already") from error
    if changed != 1:
        raise _why_not(session, record, epoch)
    known = session.identity_map.get(session.identity_key(instance=record))
    for instance in {id(record): record, id(known): known or record}.values():
        for column, value in values.items():
            set_committed_value(instance, column, value)


def _why_not(session: Session, record: Movable, epoch: int | None) -> StaleRecord:
    leader = session.scalar(select(Lease.epoch).where(Lease.name == LEADER))
    if epoch is not None and leader != epoch:
        return LeaseLost(f"epoch {epoch} no longer leads (now {leader}); this daemon must stop")
    return StaleRecord(f"{_name(record)} is no longer {record.state}; read it again")


def _name(record: Movable) -> str:
    return f"{type(record).__name__.lower()} {record.id}"
