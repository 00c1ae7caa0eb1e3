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

from orchestrator.errors import BadInput, NotFound
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
    sets = _batch_sets(session, stream.id)
    older = sets[: -settings.retention.evaluated_batches]
    _deactivate_older(session, stream.id, {found.batch_id for found in older})
    pools = _active_pools(session, stream.id)
    covered = {batch for pool in pools for batch in pool.members}
    waiting = [found for found in older if found.batch_id not in covered]
    made = [_grow(session, store, stream, pools, part, actor) for part in _parts(waiting, pools)]
    while len(pools) > MAX_POOLS:
        made.append(_merge_oldest(session, store, stream, pools, actor))
    return [pool for pool in made if pool.active]


def pool_with_next(
    session: Session, store: ArtifactStore, earlier_eval_set_ids: Sequence[int], new_eval_set_id: int
) -> EvalSet:
    """One eval set of a new batch's held-out documents and those of earlier batches whose verdict was inconclusive.

    Raises:
        NotFound: an eval set does not exist.
        BadInput: they are not of one stream.
    """
    new = _get(session, new_eval_set_id)
    sets = [*(_get(session, number) for number in sorted(set(earlier_eval_set_ids) - {new.id})), new]
    if len({found.stream_id for found in sets}) > 1:
        raise BadInput("eval sets of different streams cannot be pooled; give those of one stream")
    if len(sets) == 1:
        return new
    stream = session.get(Stream, new.stream_id)
    assert stream is not None
    members = sorted({batch for found in sets for batch in found.members})
    rows = _documents(session, store, sets)
    pooled = _add(session, store, stream, f"{new.name}-pooled", "batch", members, rows, new.batch_id)
    for found in sets:
        found.active = found.id == pooled.id
    pooled.active = True
    session.flush()
    return pooled


def _get(session: Session, number: int) -> EvalSet:
    found = session.get(EvalSet, number)
    if found is None:
        raise NotFound(f"there is no eval set {number}")
    return found


def _batch_sets(session: Session, stream_id: str) -> list[EvalSet]:
    """Each data batch's own eval set, in the order of the batches."""
    query = (
        select(EvalSet)
        .join(Batch, Batch.id == EvalSet.batch_id)
        .where(EvalSet.stream_id == stream_id, EvalSet.kind == "batch", Batch.kind == "data")
        .order_by(EvalSet.batch_id, EvalSet.id)
    )
    return [found for found in session.scalars(query) if len(found.members) == 1]


def _deactivate_older(session: Session, stream_id: str, older: set[int | None]) -> None:
    """A set that holds several batches' documents goes with the newest of them."""
    query = select(EvalSet).where(EvalSet.stream_id == stream_id, EvalSet.kind == "batch", EvalSet.active)
    for found in session.scalars(query):
        found.active = found.batch_id not in older
    session.flush()


def _active_pools(session: Session, stream_id: str) -> list[EvalSet]:
    query = select(EvalSet).where(EvalSet.stream_id == stream_id, EvalSet.kind == "pool", EvalSet.active)
    return sorted(session.scalars(query), key=lambda pool: min(pool.members))


def _parts(waiting: Sequence[EvalSet], pools: Sequence[EvalSet]) -> Iterator[list[EvalSet]]:
    """The waiting sets by the pool they go to: first what the youngest pool still takes, then 16 each."""
    taken = len(pools[-1].members) if pools else 0
    size = POOL_BATCHES - taken if 0 < taken < POOL_BATCHES else POOL_BATCHES
    start = 0
    while start < len(waiting):
        yield list(waiting[start : start + size])
        start, size = start + size, POOL_BATCHES


def _grow(
    session: Session, store: ArtifactStore, stream: Stream, pools: list[EvalSet], part: Sequence[EvalSet], actor: str
) -> EvalSet:
    """A pool of ``part``, joined with the youngest pool while that one has fewer than 16 batches."""
    joined = [pools.pop()] if pools and len(pools[-1].members) < POOL_BATCHES else []
    return _replace(session, store, stream, pools, [*joined, *part], joined, actor)


def _merge_oldest(session: Session, store: ArtifactStore, stream: Stream, pools: list[EvalSet], actor: str) -> EvalSet:
    oldest = [pools.pop(0), pools.pop(0)]
    return _replace(session, store, stream, pools, oldest, oldest, actor)


def _replace(
    session: Session,
    store: ArtifactStore,
    stream: Stream,
    pools: list[EvalSet],
    sources: Sequence[EvalSet],
    retired: Sequence[EvalSet],
    actor: str,
) -> EvalSet:
    members = sorted({batch for source in sources for batch in source.members})
    name = min((pool.name for pool in retired), key=_number, default=f"pool-{_next_number(session, stream.id)}")
    rows = _first_by_key(_documents(session, store, sources), stream.split_key)
    for pool in retired:
        pool.active = False
    pool = _add(session, store, stream, name, "pool", members, rows, None)
    pool.active = True
    pools.append(pool)
    pools.sort(key=lambda pool: min(pool.members))
    reason = f"held-out documents of {len(members)} older batches are evaluated together"
    events.record(
        session,
        stream_id=stream.id,
        subject="eval_set",
        subject_id=pool.id,
        action="pooled",
        actor=actor,
        reason=reason,
        details={"batches": members, "documents": pool.documents},
    )
    return pool


def _number(name: str) -> int:
    return int(name.removeprefix("pool-"))


def _next_number(session: Session, stream_id: str) -> int:
    query = select(EvalSet.name).where(EvalSet.stream_id == stream_id, EvalSet.kind == "pool")
    return max((_number(name) for name in session.scalars(query)), default=0) + 1


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


def _add(
    session: Session,
    store: ArtifactStore,
    stream: Stream,
    name: str,
    kind: str,
    members: list[int],
    rows: Iterable[dict[str, Any]],
    batch_id: int | None,
) -> EvalSet:
    """Store the rows in the order of their digests and write the eval set; the same set again is the same row."""
    task: Task = stream.task  # type: ignore[assignment]  # a CHECK-less column that only settings fill
    ordered = sorted(rows, key=lambda row: str(row["digest"]))
    with tempfile.TemporaryDirectory(dir=store.root, prefix=".pool-") as folder:
        path = Path(folder) / "eval.parquet"
        with Writer(path, snapshots.eval_schema(task)) as writer:
            for row in ordered:
                writer.add(row)
        stored = store.add_file(path)
    manifests.register_object(session, stored)
    same = (EvalSet.stream_id == stream.id, EvalSet.name == name, EvalSet.content_hash == stored.hash)
    found = session.scalars(select(EvalSet).where(*same)).first()
    if found is not None:
        return found
    added = EvalSet(
        stream_id=stream.id,
        name=name,
        kind=kind,
        content_hash=stored.hash,
        documents=len(ordered),
        batch_id=batch_id,
        members=members,
        labels=sorted({row["label"] for row in ordered if "label" in row}),
        active=True,
        created_at=now(),
    )
    session.add(added)
    session.flush()
    return added
