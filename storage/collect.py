"""Give back the bytes that nothing needs: mark in SQL, wait an hour, look again, delete. Rows always stay.

Kept: for live, previous and pinned versions everything; of all others ``evidence/*``; ``answer/*`` unless rejected
for longer than the stream's retention, because any version that was live may be live again; ``state/*`` of candidates
whose fate is open; all snapshots, eval sets and per-example results; and what unfinished or recent jobs speak of.
Of a purged stream nothing is kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from sqlalchemy import ColumnElement, Select, String, and_, cast, exists, func, or_, select, union, update
from sqlalchemy.orm import Session

from storage import leases, lineage
from storage.artifacts import ArtifactStore, Stored
from storage.database import Database, now
from storage.manifests import ROWS_AT_ONCE, in_parts
from storage.states import JOB_UNFINISHED
from storage.tables import (
    Batch,
    Decision,
    EvalSet,
    Evaluation,
    Event,
    Job,
    ManifestEntry,
    Promotion,
    StoredObject,
    Stream,
    Version,
    VersionArtifact,
)

PURGED = "purged"
"""Action of the event on a stream that says: its bytes may go."""
GRACE = timedelta(hours=1)
KEEP_REJECTED = timedelta(days=7)
KEEP_JOBS = timedelta(days=7)
"""Jobs that ended longer ago no longer protect what they name; files that SQL never heard of go after this time too."""

_HASH = re.compile(r"\b[0-9a-f]{64}\b")


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What a collection did, or with ``dry_run`` would do."""

    marked: tuple[Stored, ...]
    """No longer needed as of now; deleted by a later collection unless needed again."""
    deleted: tuple[Stored, ...]

    @property
    def deleted_bytes(self) -> int:
        """Size of what was deleted; the disk has it back once no published folder links to it."""
        return sum(stored.bytes for stored in self.deleted)


def collect(
    database: Database,
    store: ArtifactStore,
    *,
    epoch: int,
    keep_rejected: Mapping[str, timedelta] | None = None,
    dry_run: bool = False,
    at: datetime | None = None,
) -> Collected:
    """Mark, and delete what was marked an hour ago. ``keep_rejected`` is the retention by stream id, else 7 days.

    Raises:
        LeaseLost: ``epoch`` no longer leads; nothing more is deleted.
    """
    needs = _Needs(at=at or now(), keep_rejected=keep_rejected or {})
    if dry_run:
        with database.read() as session:
            return Collected(marked=needs.to_mark(session), deleted=needs.to_delete(session))
    with database.write() as session:
        leases.require(session, epoch)
        _set(session, needs.again(session), marked_at=None)
        marked = needs.to_mark(session)
        _set(session, [stored.hash for stored in marked], marked_at=needs.at)
    deleted = _delete(database, store, needs, epoch)
    _delete_unknown(database, store, needs.at, epoch)
    return Collected(marked=marked, deleted=deleted)


@dataclass(frozen=True, kw_only=True)
class _Needs:
    """What is needed at an instant: asked in SQL, and beside it the hashes that jobs speak of in their JSON."""

    at: datetime
    keep_rejected: Mapping[str, timedelta]

    def to_mark(self, session: Session) -> tuple[Stored, ...]:
        return self._unneeded(session, StoredObject.marked_at.is_(None), StoredObject.created_at <= self.at - GRACE)

    def to_delete(self, session: Session) -> tuple[Stored, ...]:
        return self._unneeded(session, StoredObject.marked_at <= self.at - GRACE)

    def again(self, session: Session) -> list[str]:
        """Marked objects that are needed again."""
        marked = select(StoredObject.hash).where(StoredObject.marked_at.is_not(None), StoredObject.deleted_at.is_(None))
        found = set(session.scalars(marked.where(StoredObject.hash.in_(self._kept(session)))))
        found |= _spoken_of(session, self.at).intersection(session.scalars(marked))
        return sorted(found)

    def _unneeded(self, session: Session, *conditions: ColumnElement[bool]) -> tuple[Stored, ...]:
        spoken_of = _spoken_of(session, self.at)
        rows = session.execute(
            select(StoredObject.hash, StoredObject.bytes)
            .where(*conditions, StoredObject.deleted_at.is_(None), StoredObject.hash.not_in(self._kept(session)))
            .order_by(StoredObject.hash)
        )
        return tuple(Stored(hash=name, bytes=size) for name, size in rows if name not in spoken_of)

    def _kept(self, session: Session) -> Select[tuple[str]]:
        """A query for the hashes of all objects that the lineage needs."""
        of_version = Version.id == VersionArtifact.version_id
        kept = (
            select(VersionArtifact.manifest_hash.label("hash"))
            .join(Version, of_version)
            .join(Stream, Stream.id == Version.stream_id)
            .where(~_is_purged(), or_(*self._reasons(session)))
            .distinct()
            .cte("kept_manifests")
        )
        results = select(Evaluation.results_hash).join(Version, Version.id == Evaluation.version_id)
        everything = union(
            select(kept.c.hash),
            select(ManifestEntry.object_hash).join(kept, kept.c.hash == ManifestEntry.manifest_hash),
            select(Batch.snapshot_hash).join(Stream, Stream.id == Batch.stream_id).where(~_is_purged()),
            select(EvalSet.content_hash).join(Stream, Stream.id == EvalSet.stream_id).where(~_is_purged()),
            results.join(Stream, Stream.id == Version.stream_id).where(~_is_purged()),
        )
        return select(everything.subquery("kept_objects").c[0])

    def _reasons(self, session: Session) -> list[ColumnElement[bool]]:
        role = VersionArtifact.role
        return [
            role.like("evidence/%"),
            and_(role.like("answer/%"), Version.state != "rejected"),
            Version.state.in_(("live", "candidate", "evaluated")),
            Version.pinned.is_(True),
            Version.id.in_(_previous(session)),
            and_(Version.state == "rejected", self._rejected_lately()),
        ]

    def _rejected_lately(self) -> ColumnElement[bool]:
        periods = [
            and_(Version.stream_id == stream_id, Event.created_at > self.at - period)
            for stream_id, period in self.keep_rejected.items()
        ]
        others = and_(Version.stream_id.not_in(list(self.keep_rejected)), Event.created_at > self.at - KEEP_REJECTED)
        return exists().where(
            Event.subject == "version",
            Event.subject_id == cast(Version.id, String),
            Event.to_state == "rejected",
            or_(others, *periods),
        )


def _previous(session: Session) -> list[int]:
    """Versions that were replaced last, and those that a rollback would go back to."""
    newest = select(func.max(Promotion.id)).group_by(Promotion.stream_id)
    replaced = select(Promotion.previous_version_id).where(Promotion.id.in_(newest))
    streams = session.scalars(select(Version.stream_id).where(Version.state == "live")).all()
    stacks = [lineage.live_stack(session, stream_id) for stream_id in streams]
    found = {*session.scalars(replaced), *(stack[-2].version_id for stack in stacks if len(stack) > 1)}
    return sorted(version_id for version_id in found if version_id is not None)


def _is_purged() -> ColumnElement[bool]:
    told = exists().where(Event.subject == "stream", Event.subject_id == Stream.id, Event.action == PURGED)
    return and_(Stream.state == "archived", told)


def _spoken_of(session: Session, at: datetime) -> set[str]:
    """Every hash in the records of jobs that are not done, belong to an open decision, or ended lately, with the
    objects of the manifests among them."""
    rows = session.execute(
        select(Job.spec, Job.artifacts, Job.result)
        .outerjoin(Decision, Decision.id == Job.decision_id)
        .where(
            or_(
                Job.state.in_(JOB_UNFINISHED),
                and_(Decision.id.is_not(None), Decision.closed_at.is_(None)),
                Job.finished_at > at - KEEP_JOBS,
            )
        )
    )
    found = {name for row in rows for name in _HASH.findall(json.dumps(list(row)))}
    for part in in_parts(sorted(found)):
        found |= set(session.scalars(select(ManifestEntry.object_hash).where(ManifestEntry.manifest_hash.in_(part))))
    return found


def _delete(database: Database, store: ArtifactStore, needs: _Needs, epoch: int) -> tuple[Stored, ...]:
    """SQL first: a file without its row is found later, a row without its file would be a lie."""
    with database.write() as session:
        leases.require(session, epoch)
        doomed = needs.to_delete(session)
        _set(session, [stored.hash for stored in doomed], deleted_at=needs.at)
    untouched_since = (needs.at - GRACE).timestamp()
    return tuple(one for one in doomed if store.objects.remove(one.hash, untouched_since=untouched_since))


def _delete_unknown(database: Database, store: ArtifactStore, at: datetime, epoch: int) -> None:
    """Files that SQL does not know of, or knows as deleted: what a crash left behind."""
    long_ago = (at - KEEP_JOBS).timestamp()
    store.objects.remove_temporary(untouched_since=(at - GRACE).timestamp())
    old = (stored.hash for stored, touched_at in store.objects.list() if touched_at <= long_ago)
    while part := list(islice(old, ROWS_AT_ONCE)):
        with database.read() as session:
            leases.require(session, epoch)
            known = select(StoredObject.hash).where(StoredObject.hash.in_(part), StoredObject.deleted_at.is_(None))
            unknown = set(part) - set(session.scalars(known))
        for name in unknown:
            store.objects.remove(name, untouched_since=long_ago)


def _set(session: Session, hashes: Sequence[str], **values: datetime | None) -> None:
    for part in in_parts(hashes):
        statement = update(StoredObject).where(StoredObject.hash.in_(part)).values(**values)
        session.execute(statement, execution_options={"synchronize_session": False})
