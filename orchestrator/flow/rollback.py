"""Step seven: a promotion that points back, and the batches it leaves behind are held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.errors import BadInput, Conflict
from orchestrator.flow import promotion, publication, records
from storage import lineage
from storage.moves import move
from storage.tables import Batch, Promotion, Stream, Version


@dataclass(frozen=True, kw_only=True)
class Way:
    """Where a rollback goes: the version that becomes live and those that are left, newest first."""

    target: int
    abandoned: tuple[int, ...]


def roll_back(app: App, stream_name: str, *, to: int | None, reason: str, actor: str) -> Promotion:
    """Return to the version that was live before this one, or to version ``to``.

    Raises:
        NotFound: no such stream.
        BadInput: no reason given.
        Conflict: there is nothing to go back to, or ``to`` was never live.
    """
    if not reason.strip():
        raise BadInput("a rollback needs a reason; give one with --reason")
    with app.database.read() as session:
        stream = records.stream_by_name(session, stream_name)
        way = find_way(session, stream, to)
    publication.prepare_if_published(app, stream.id, way.target)
    with app.database.write() as session:
        stream = session.get_one(Stream, stream.id)
        if find_way(session, stream, to) != way:
            raise Conflict(f"another version of {stream_name!r} became live meanwhile; ask again")
        target = session.get_one(Version, way.target)
        done = promotion.make_live(
            app, session, stream=stream, version=target, kind="rollback", reason=reason, actor=actor
        )
        hold_left_behind(app, session, stream, way, reason=reason, actor=actor)
    publication.follow(app, stream.id)
    app.wake.set()
    return done


def find_way(session: Session, stream: Stream, to: int | None) -> Way:
    """Read the promotions as a stack: a promotion pushes, a rollback pops to its target.

    Raises:
        Conflict: there is nothing to go back to, or ``to`` was never live.
    """
    stack = [one.version_id for one in lineage.live_stack(session, stream.id)]
    if to is None:
        if len(stack) < 2:
            raise Conflict(f"stream {stream.name!r} has no earlier version to return to")
        return Way(target=stack[-2], abandoned=(stack[-1],))
    target = lineage.version_by_number(session, stream.id, to)
    if target is None or not _was_live(session, target):
        raise Conflict(f"{stream.name}/{to} was never live; `rekindle version list {stream.name}` shows which were")
    if stack[-1] == target.id:
        raise Conflict(f"{stream.name}/{to} is live already")
    if target.id not in stack:
        return Way(target=target.id, abandoned=(stack[-1],))
    at = len(stack) - 1 - stack[::-1].index(target.id)
    return Way(target=target.id, abandoned=tuple(reversed(stack[at + 1 :])))


def hold_left_behind(
    app: App, session: Session, stream: Stream, way: Way, *, reason: str, actor: str
) -> Sequence[Batch]:
    """Hold the batches behind the abandoned versions and not behind the target."""
    left = lineage.batches_only_behind(session, list(way.abandoned), way.target)
    held = [
        batch
        for batch in records.batches_by_id(session, left).values()
        if batch.kind == "data" and batch.state in ("trained", "pending")
    ]
    for batch in held:
        why = f"held by rollback: {reason}; `rekindle stream release-batches {stream.name}` lets it train again"
        move(session, batch, "held", actor=actor, reason=why, epoch=app.epoch, state_reason=why)
    return held


def _was_live(session: Session, version: Version) -> bool:
    return session.scalar(select(Promotion.id).where(Promotion.version_id == version.id).limit(1)) is not None
