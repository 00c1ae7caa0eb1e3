"""Questions about the lineage; each walk through the graph is one recursive query, the same on both databases.

Walks collect ids with UNION, which drops what was seen, so they end on any graph and touch each version once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import CTE, ColumnElement, select
from sqlalchemy.orm import Session

from storage.tables import Batch, Promotion, Version, VersionBatch, VersionParent


@dataclass(frozen=True, kw_only=True)
class BatchUse:
    """A batch that a version's line consumed, and how: ``trained`` or ``replayed``."""

    batch_id: int
    role: str


def ancestors(session: Session, version_id: int) -> list[int]:
    """Ids of all versions that this one came from, newest first, itself left out."""
    line = _upward(Version.id == version_id)
    return list(session.scalars(select(line.c.id).where(line.c.id != version_id).order_by(line.c.id.desc())))


def descendants(session: Session, version_id: int) -> list[int]:
    """Ids of all versions that came from this one, oldest first, itself left out."""
    line = _downward(select(Version.id).where(Version.id == version_id).cte("line", recursive=True))
    return list(session.scalars(select(line.c.id).where(line.c.id != version_id).order_by(line.c.id)))


def batches_behind(session: Session, version_id: int) -> list[BatchUse]:
    """Every batch that a version or an ancestor consumed, once a role, by batch id."""
    line = _upward(Version.id == version_id)
    rows = session.execute(
        select(VersionBatch.batch_id, VersionBatch.role)
        .where(VersionBatch.version_id.in_(select(line.c.id)))
        .distinct()
        .order_by(VersionBatch.batch_id, VersionBatch.role)
    )
    return [BatchUse(batch_id=batch_id, role=role) for batch_id, role in rows]


def batches_only_behind(session: Session, abandoned_ids: Sequence[int], target_id: int) -> list[int]:
    """Ids of the data batches behind the abandoned versions and not behind the target: what a rollback holds."""
    left = _upward(Version.id.in_(abandoned_ids), name="abandoned")
    kept = _upward(Version.id == target_id, name="kept")
    behind_target = select(VersionBatch.batch_id).where(VersionBatch.version_id.in_(select(kept.c.id)))
    return list(
        session.scalars(
            select(VersionBatch.batch_id)
            .join(Batch, Batch.id == VersionBatch.batch_id)
            .where(
                Batch.kind == "data",
                VersionBatch.version_id.in_(select(left.c.id)),
                VersionBatch.batch_id.not_in(behind_target),
            )
            .distinct()
            .order_by(VersionBatch.batch_id)
        )
    )


def versions_that_saw_batch(session: Session, batch_id: int) -> list[int]:
    """Numbers of the versions that consumed rows of a batch, and of all that came from them, oldest first."""
    first = select(VersionBatch.version_id.label("id")).where(VersionBatch.batch_id == batch_id)
    line = _downward(first.cte("line", recursive=True))
    return list(session.scalars(select(Version.number).join(line, line.c.id == Version.id).order_by(Version.number)))


def live_version(session: Session, stream_id: str) -> Version | None:
    """The version that answers for a stream."""
    return session.scalars(select(Version).where(Version.stream_id == stream_id, Version.state == "live")).one_or_none()


def version_by_number(session: Session, stream_id: str, number: int) -> Version | None:
    """A stream's version by the number that users see."""
    return session.scalars(
        select(Version).where(Version.stream_id == stream_id, Version.number == number)
    ).one_or_none()


def live_stack(session: Session, stream_id: str, *, until: datetime | None = None) -> list[Promotion]:
    """The promotions that led to the live version, oldest first: a rollback takes away those it went back over.

    The last but one made the version that the next rollback goes to. Given ``until``, to what was live then.
    """
    stack: list[Promotion] = []
    for one in _promotions(session, stream_id, until):
        _follow(stack, one)
    return stack


def left_behind(session: Session, stream_id: str) -> dict[int, Promotion]:
    """Version -> the rollback that went back over it, or away from its line, unless it came back since."""
    stack: list[Promotion] = []
    left: dict[int, Promotion] = {}
    for one in _promotions(session, stream_id):
        gone = _follow(stack, one)
        if (
            one.kind == "rollback"
            and stack[-1] is one
            and stack[-2].version_id not in ancestors(session, one.version_id)
        ):
            gone = [stack[-2]]
        left |= {before.version_id: one for before in gone}
        left.pop(one.version_id, None)
    return left


def _promotions(session: Session, stream_id: str, until: datetime | None = None) -> Sequence[Promotion]:
    query = select(Promotion).where(Promotion.stream_id == stream_id).order_by(Promotion.id)
    return session.scalars(query if until is None else query.where(Promotion.created_at <= until)).all()


def _follow(stack: list[Promotion], one: Promotion) -> list[Promotion]:
    """Bring the stack to where a promotion leads, and return what a rollback takes away from it."""
    gone: list[Promotion] = []
    if one.kind == "rollback" and any(earlier.version_id == one.version_id for earlier in stack):
        while stack[-1].version_id != one.version_id:
            gone.append(stack.pop())
    else:
        stack.append(one)
    return gone


def _upward(start: ColumnElement[bool], *, name: str = "line") -> CTE:
    line = select(Version.id).where(start).cte(name, recursive=True)
    return line.union(select(VersionParent.parent_id).join(line, line.c.id == VersionParent.child_id))


def _downward(line: CTE) -> CTE:
    return line.union(select(VersionParent.child_id).join(line, line.c.id == VersionParent.parent_id))
