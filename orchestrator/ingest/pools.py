"""Eval sets over time: the newest batches keep theirs, older held-out documents go to pools of bounded size.

A pool covers 16 data batches in the order of their ids and has at most 500 documents, those first by keyed hash: a
sample that does not depend on the order of events. The youngest pool grows until its 16 batches are there, then it is
frozen; beyond 16 pools the two oldest become one. Every change is a new row; rows that went out of use are not active.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.ingest import snapshots
from orchestrator.ingest.snapshots import Writer
from orchestrator.ingest.split import keyed
from orchestrator.settings import StreamSettings
from storage import events, manifests
from storage.artifacts import ArtifactStore
from storage.database import now
from storage.tables import Batch, Document, EvalSet, Stream
from strategies.settings import Task

POOL_DOCUMENTS = 500
POOL_BATCHES = 16
MAX_POOLS = 16


def maintain_pools(
    session: Session, store: ArtifactStore, stream: Stream, settings: StreamSettings, *, actor: str
) -> list[EvalSet]:
    """Move the held-out documents of older batches into pools; returns the pools that are new. Twice does no harm."""
    older = _batch_sets(session, stream.id)[: -settings.retention.evaluated_batches]
    _deactivate_older(session, stream.id, {found.batch_id for found in older})
    keeper = _Keeper(session, store, stream, actor)
    covered = {batch for pool in keeper.pools for batch in pool.members}
    keeper.take_in([found for found in older if found.batch_id not in covered])
    keeper.merge_surplus()
    return [pool for pool in keeper.made if pool.active]


class _Keeper:
    """The active pools of a stream, oldest first, and what is done to them."""

    def __init__(self, session: Session, store: ArtifactStore, stream: Stream, actor: str) -> None:
        self._session = session
        self._store = store
        self._stream = stream
        self._actor = actor
        self.pools = _active_pools(session, stream.id)
        self.made: list[EvalSet] = []

    def take_in(self, waiting: Sequence[EvalSet]) -> None:
        """The youngest pool first, while it has fewer than 16 batches; then new pools."""
        start = 0
        while start < len(waiting):
            growing = [self.pools[-1]] if self.pools and len(self.pools[-1].members) < POOL_BATCHES else []
            room = POOL_BATCHES - sum(len(pool.members) for pool in growing)
            self._make([*growing, *waiting[start : start + room]], retired=growing)
            start += room

    def merge_surplus(self) -> None:
        """The two oldest become one until there are 16."""
        while len(self.pools) > MAX_POOLS:
            self._make(self.pools[:2], retired=self.pools[:2])

    def _make(self, sources: Sequence[EvalSet], *, retired: Sequence[EvalSet]) -> None:
        pool = EvalSet(
            stream_id=self._stream.id,
            name=min((pool.name for pool in retired), key=_number, default=self._next_name()),
            kind="pool",
            batch_id=None,
            members=sorted({batch for source in sources for batch in source.members}),
        )
        rows = _first_by_key(_documents(self._session, self._store, sources), self._stream.split_key)
        for old in retired:
            old.active = False
        pool = _add(self._session, self._store, pool, _task(self._session, pool), rows)
        kept = [old for old in self.pools if old not in retired]
        self.pools = sorted([*kept, pool], key=lambda pool: min(pool.members))
        self.made.append(pool)
        self._tell(pool)

    def _next_name(self) -> str:
        query = select(EvalSet.name).where(EvalSet.stream_id == self._stream.id, EvalSet.kind == "pool")
        return f"pool-{max((_number(name) for name in self._session.scalars(query)), default=0) + 1}"

    def _tell(self, pool: EvalSet) -> None:
        events.record(
            self._session,
            stream_id=self._stream.id,
            subject="eval_set",
            subject_id=pool.id,
            action="pooled",
            actor=self._actor,
            reason=f"held-out documents of {len(pool.members)} older batches are evaluated together",
            details={"batches": pool.members, "documents": pool.documents},
        )


def _batch_sets(session: Session, stream_id: str) -> list[EvalSet]:
    """Each trained data batch's own eval set, in the order of the batches; others are not yet old."""
    query = (
        select(EvalSet)
        .join(Batch, Batch.id == EvalSet.batch_id)
        .where(EvalSet.stream_id == stream_id, EvalSet.kind == "batch", Batch.kind == "data", Batch.state == "trained")
        .order_by(EvalSet.batch_id, EvalSet.id)
    )
    return list(session.scalars(query))


def _deactivate_older(session: Session, stream_id: str, older: set[int | None]) -> None:
    query = select(EvalSet).where(EvalSet.stream_id == stream_id, EvalSet.kind == "batch", EvalSet.active)
    for found in session.scalars(query):
        found.active = found.batch_id not in older
    session.flush()


def _active_pools(session: Session, stream_id: str) -> list[EvalSet]:
    query = select(EvalSet).where(EvalSet.stream_id == stream_id, EvalSet.kind == "pool", EvalSet.active)
    return sorted(session.scalars(query), key=lambda pool: min(pool.members))


def _number(name: str) -> int:
    return int(name.removeprefix("pool-"))


def _task(session: Session, eval_set: EvalSet) -> Task:
    task: Task = session.scalars(select(Stream.task).where(Stream.id == eval_set.stream_id)).one()  # type: ignore[assignment]
    return task


def _documents(session: Session, store: ArtifactStore, sets: Iterable[EvalSet]) -> Iterator[dict[str, Any]]:
    """Rows of several eval sets, each document once, erased ones left out; halves stay as they were."""
    seen: set[str] = set()
    for found in sets:
        erased = _erased(session, found.members)
        for row in snapshots.read_rows(store.path(found.content_hash)):
            if row["digest"] not in seen and row["digest"] not in erased:
                seen.add(row["digest"])
                yield row


def _erased(session: Session, members: Sequence[int]) -> set[str]:
    query = select(Document.digest).where(Document.batch_id.in_(members), Document.state == "erased")
    return set(session.scalars(query.where(Document.split == "heldout")))


def _first_by_key(rows: Iterable[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return heapq.nsmallest(POOL_DOCUMENTS, rows, key=lambda row: (keyed(key, row["digest"]), row["digest"]))


def _add(session: Session, store: ArtifactStore, added: EvalSet, task: Task, rows: Iterable[dict[str, Any]]) -> EvalSet:
    """Store the rows in the order of their digests and write the eval set; the same set again is the same row."""
    ordered = sorted(rows, key=lambda row: str(row["digest"]))
    with tempfile.TemporaryDirectory(prefix="rekindle-pool-") as folder:
        path = Path(folder) / "eval.parquet"
        with Writer(path, snapshots.eval_schema(task)) as writer:
            for row in ordered:
                writer.add(row)
        stored = store.add_file(path)
    manifests.register_object(session, stored)
    same = (EvalSet.stream_id == added.stream_id, EvalSet.name == added.name, EvalSet.content_hash == stored.hash)
    found = session.scalars(select(EvalSet).where(*same)).first() or added
    if found is added:
        added.content_hash = stored.hash
        added.documents = len(ordered)
        added.labels = sorted({row["label"] for row in ordered if "label" in row})
        added.created_at = now()
        session.add(added)
    found.active = True
    session.flush()
    return found
