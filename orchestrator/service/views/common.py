"""What all views share: finding a record by the name people use, and pages of bounded size."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from orchestrator.errors import NotFound
from storage import lineage
from storage.tables import Batch, Decision, Job, Stream, Version

MAX_PAGE = 1000
"""Rows in one answer, whatever is asked for."""
QUARANTINE_SHOWN = 200


def find_stream(session: Session, name: str) -> Stream:
    """The stream of that name; an archived one only where no other has taken the name.

    Raises:
        NotFound: there is none.
    """
    query = select(Stream).where(Stream.name == name)
    found = session.scalar(query.where(Stream.archived_at.is_(None)))
    found = found or session.scalars(query.order_by(Stream.archived_at.desc()).limit(1)).first()
    if found is None:
        raise NotFound(f"there is no stream {name!r}; `rekindle stream list` shows those that exist")
    return found


def find_version(session: Session, stream: Stream, number: int | None) -> Version:
    """The version of that number, or the live one.

    Raises:
        NotFound: there is none.
    """
    if number is None:
        return live_version(session, stream)
    found = lineage.version_by_number(session, stream.id, number)
    if found is None:
        raise NotFound(
            f"stream {stream.name!r} has no version {number}; `rekindle version list {stream.name}` shows those it has"
        )
    return found


def live_version(session: Session, stream: Stream) -> Version:
    """The live version.

    Raises:
        NotFound: the stream is still being registered, or its registration failed.
    """
    found = lineage.live_version(session, stream.id)
    if found is None:
        raise NotFound(f"stream {stream.name!r} has no live version; `rekindle stream show {stream.name}` says why")
    return found


def find_batch(session: Session, batch_id: int) -> Batch:
    """The batch of that id.

    Raises:
        NotFound: there is none.
    """
    found = session.get(Batch, batch_id)
    if found is None:
        raise NotFound(f"there is no batch {batch_id}; `rekindle batch list` shows those that exist")
    return found


def find_job(session: Session, job_id: int) -> Job:
    """The job of that id.

    Raises:
        NotFound: there is none.
    """
    found = session.get(Job, job_id)
    if found is None:
        raise NotFound(f"there is no job {job_id}; `rekindle job list` shows those that exist")
    return found


def find_decision(session: Session, decision_id: int) -> Decision:
    """The decision of that id.

    Raises:
        NotFound: there is none.
    """
    found = session.get(Decision, decision_id)
    if found is None:
        raise NotFound(f"there is no decision {decision_id}; `rekindle decision list` shows those that exist")
    return found


def page(
    session: Session, query: Select[Any], *, by: InstrumentedAttribute[int], limit: int, before: int | None
) -> list[Any]:
    """The newest ``limit`` rows older than ``before``, oldest first."""
    if before is not None:
        query = query.where(by < before)
    return list(session.scalars(query.order_by(by.desc()).limit(min(limit, MAX_PAGE))))[::-1]


def stream_names(session: Session, ids: Iterable[str]) -> dict[str, str]:
    """Stream id -> name."""
    rows = session.execute(select(Stream.id, Stream.name).where(Stream.id.in_(set(ids))))
    return {row.id: row.name for row in rows}


def version_numbers(session: Session, ids: Iterable[int | None]) -> dict[int, int]:
    """Version id -> number."""
    wanted = {one for one in ids if one is not None}
    rows = session.execute(select(Version.id, Version.number).where(Version.id.in_(wanted)))
    return {row.id: row.number for row in rows}
