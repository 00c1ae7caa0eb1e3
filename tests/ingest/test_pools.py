"""Eval sets of older batches become pools; their number and size stay bounded, and nothing is lost early."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from orchestrator.ingest import pools, snapshots
from orchestrator.ingest.pools import maintain_pools
from orchestrator.settings import StreamSettings
from storage.database import now
from storage.tables import Batch, Document, EvalSet, Stream
from tests.ingest.conftest import MakeWorld, World
from tests.ingest.texts import rows, write_lines

SETTINGS = StreamSettings(name="news", model="base")


def arrive(world: World, folder: Path, number: int, documents: int = 10) -> int:
    path = write_lines(folder / f"{number}.jsonl", rows(documents, start=1000 * number))
    batch_id = world.ingest(path).batch_id
    assert batch_id is not None
    with world.database.write() as session:
        session.execute(update(Batch).where(Batch.id == batch_id).values(state="trained"))
    return batch_id


def maintain(world: World) -> list[EvalSet]:
    with world.database.write() as session:
        stream = session.get(Stream, world.stream_id)
        assert stream is not None
        return maintain_pools(session, world.store, stream, SETTINGS, actor="test")


def active(world: World, kind: str) -> list[EvalSet]:
    with world.database.read() as session:
        query = select(EvalSet).where(EvalSet.active, EvalSet.kind == kind).order_by(EvalSet.id)
        return list(session.scalars(query))


def digests(world: World, eval_set: EvalSet) -> dict[str, str]:
    found = snapshots.read_rows(world.store.path(eval_set.content_hash))
    return {row["digest"]: row["half"] for row in found}


def test_the_newest_eight_stay_apart_and_older_ones_are_pooled(make_either: MakeWorld, tmp_path: Path) -> None:
    world = make_either()
    batches = [arrive(world, tmp_path, number) for number in range(10)]
    before = [digests(world, eval_set) for eval_set in active(world, "batch")]
    (pool,) = maintain(world)
    assert [eval_set.batch_id for eval_set in active(world, "batch")] == batches[2:]
    assert (pool.name, pool.members, pool.documents) == ("pool-1", batches[:2], 2)
    assert digests(world, pool) == before[0] | before[1]
    assert maintain(world) == []


def test_a_pool_is_frozen_once_it_has_sixteen_batches(local: World, tmp_path: Path) -> None:
    for number in range(8 + 16 + 1):
        arrive(local, tmp_path, number, documents=5)
        maintain(local)
    assert [(pool.name, len(pool.members)) for pool in active(local, "pool")] == [("pool-1", 16), ("pool-2", 1)]
    first = active(local, "pool")[0]
    arrive(local, tmp_path, 90, documents=5)
    maintain(local)
    assert active(local, "pool")[0].id == first.id


def make_history(world: World, count: int, documents: int) -> None:
    """Batches with eval sets of their own, without the cost of ingesting each."""
    task: Any = "causal-lm"
    for number in range(count):
        path = world.home.root / "eval.parquet"
        with snapshots.Writer(path, snapshots.eval_schema(task)) as writer:
            for place in range(documents):
                digest = f"{number:08d}{place:08d}".ljust(64, "0")
                writer.add({"digest": digest, "half": ("judge", "select")[place % 2], "text": digest})
        stored = world.store.add_file(path)
        with world.database.write() as session:
            batch = Batch(
                stream_id=world.stream_id, kind="data", name=str(number), state="trained",
                arrival_hash=f"{number:064d}",
                snapshot_hash="0" * 64, documents=0, train_documents=0, heldout_documents=documents, duplicates=0,
                near_duplicates=0, conflicts=0, leaked=0, quarantined=0, labels=[], created_at=now(),
            )  # fmt: skip
            session.add(batch)
            session.flush()
            session.add(
                EvalSet(
                    stream_id=world.stream_id, name=f"batch-{batch.id}", kind="batch", content_hash=stored.hash,
                    documents=documents, batch_id=batch.id, members=[batch.id], labels=[], created_at=now(),
                )
            )  # fmt: skip


def test_a_long_history_is_evaluated_on_sixteen_pools_of_500(local: World) -> None:
    make_history(local, 8 + 16 * 17, documents=40)
    maintain(local)
    found = active(local, "pool")
    assert (len(found), len(active(local, "batch"))) == (16, 8)
    assert {pool.documents for pool in found} == {pools.POOL_DOCUMENTS}
    assert sorted(batch for pool in found for batch in pool.members) == list(range(1, 16 * 17 + 1))


def test_the_order_of_maintenance_does_not_change_the_pools(make_local: MakeWorld) -> None:
    at_once, step_by_step = make_local(), make_local()
    make_history(at_once, 30, documents=60)
    maintain(at_once)
    make_history(step_by_step, 30, documents=60)
    with step_by_step.database.write() as session:
        session.execute(update(EvalSet).values(kind="fixed"))
    for batch in range(1, 31):
        with step_by_step.database.write() as session:
            session.execute(update(EvalSet).where(EvalSet.batch_id == batch).values(kind="batch"))
        maintain(step_by_step)
    assert [pool.content_hash for pool in active(at_once, "pool")] == [
        pool.content_hash for pool in active(step_by_step, "pool")
    ]


def test_erased_documents_do_not_enter_a_pool(local: World, tmp_path: Path) -> None:
    for number in range(9):
        arrive(local, tmp_path, number, documents=20)
    with local.database.write() as session:
        held = session.scalars(select(Document).where(Document.batch_id == 1, Document.split == "heldout")).all()
        held[0].state = "erased"
    (pool,) = maintain(local)
    assert set(digests(local, pool)) == {held[1].digest}


def test_batches_that_wait_for_training_stay_apart(local: World, tmp_path: Path) -> None:
    arrived = [arrive(local, tmp_path, number) for number in range(10)]
    with local.database.write() as session:
        session.execute(update(Batch).where(Batch.id.in_(arrived)).values(state="pending"))
    assert maintain(local) == []
    assert len(active(local, "batch")) == 10
