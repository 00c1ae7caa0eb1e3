"""Collection gives back what nothing needs, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from storage import collect, events, leases, manifests
from storage.artifacts import ArtifactStore, ManifestRecord
from storage.collect import Collected
from storage.database import Database, now
from storage.errors import ArtifactMissing, LeaseLost
from storage.moves import move
from storage.tables import StoredObject, Stream, Version, VersionArtifact
from tests.manifests import verify_manifest
from tests.storage import rows

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
Collect = Callable[..., Collected]


@pytest.fixture
def collecting(database: Database, store: ArtifactStore) -> Collect:
    """Collect at a time counted from now; the leader's epoch is given."""
    epoch = leases.acquire(database, "me", 3600)
    start = now()

    def run(after: timedelta, **options: Any) -> Collected:
        return collect.collect(database, store, **{"epoch": epoch, "at": start + after, **options})

    return run


class Shelf:
    """Versions with artifacts that share nothing."""

    def __init__(self, database: Database, store: ArtifactStore, folder: Path) -> None:
        self.database, self.store, self.folder = database, store, folder
        with database.write() as session:
            rows.add_stream(session)

    def manifest(self, text: str) -> ManifestRecord:
        source = self.folder / text.replace("/", "-")
        source.mkdir()
        (source / "file.txt").write_text(text)
        made = self.store.add_folder(source)
        with self.database.write() as session:
            manifests.register(session, made)
        return made

    def version(self, number: int, state: str, **values: Any) -> int:
        made = {role: self.manifest(f"{number}/{role}") for role in ("answer/model", "state/trunk", "evidence/log")}
        with self.database.write() as session:
            version = rows.add_version(session, number, state=state, **values)
            for role, manifest in made.items():
                rows.add_artifact(session, version, role, manifest.hash)
            return version.id

    def left(self, number: int) -> set[str]:
        """Which artifacts of a version are whole; what SQL says of each agrees with the disk."""
        with self.database.read() as session:
            artifacts = session.execute(
                select(VersionArtifact.role, VersionArtifact.manifest_hash)
                .join(Version, Version.id == VersionArtifact.version_id)
                .where(Version.number == number)
            ).all()
            known = {role for role, name in artifacts if manifests.is_available(session, name)}
        assert known == {role for role, name in artifacts if self._is_whole(name)}
        return {role.split("/")[0] for role in known}

    def _is_whole(self, name: str) -> bool:
        try:
            verify_manifest(self.store, name)
        except ArtifactMissing:
            return False
        return True


@pytest.fixture
def shelf(database: Database, store: ArtifactStore, tmp_path: Path) -> Shelf:
    return Shelf(database, store, tmp_path)


def _twice(collecting: Collect, after: timedelta, **options: Any) -> Collected:
    collecting(after, **options)
    return collecting(after + HOUR, **options)


ALL = {"answer", "state", "evidence"}


def _reject(database: Database, version_id: int) -> None:
    with database.write() as session:
        move(session, session.get_one(Version, version_id), "rejected", actor="me", reason="r")


def test_live_previous_pinned_and_open_candidates_keep_everything(
    database: Database, shelf: Shelf, collecting: Collect
) -> None:
    previous, live = shelf.version(1, "retired"), shelf.version(2, "live")
    shelf.version(3, "retired", pinned=True)
    shelf.version(4, "evaluated")
    shelf.version(5, "candidate")
    with database.write() as session:
        first, second = session.get_one(Version, previous), session.get_one(Version, live)
        rows.add_promotion(session, first, None, "initial")
        rows.add_promotion(session, second, first)
    assert _twice(collecting, 365 * DAY) == Collected(marked=(), deleted=())
    assert [shelf.left(number) for number in range(1, 6)] == [ALL] * 5


def test_after_a_rollback_both_the_abandoned_and_the_next_way_back_are_kept(
    database: Database, shelf: Shelf, collecting: Collect
) -> None:
    ids = [shelf.version(1, "retired"), shelf.version(2, "live"), shelf.version(3, "retired")]
    with database.write() as session:
        first, second, third = (session.get_one(Version, one) for one in ids)
        story = [(first, None, "initial"), (second, first, "promotion"), (third, second, "promotion")]
        for version, before, kind in [*story, (second, third, "rollback")]:
            rows.add_promotion(session, version, before, kind)
    _twice(collecting, 365 * DAY)
    assert [shelf.left(number) for number in (1, 2, 3)] == [ALL] * 3


def test_older_versions_keep_their_answer_and_evidence(shelf: Shelf, collecting: Collect) -> None:
    shelf.version(1, "retired")
    _twice(collecting, 2 * HOUR)
    assert shelf.left(1) == {"answer", "evidence"}


def test_a_rejected_candidate_keeps_its_bytes_for_the_retention_and_then_the_evidence(
    database: Database, shelf: Shelf, collecting: Collect
) -> None:
    _reject(database, shelf.version(1, "evaluated"))
    _twice(collecting, 6 * DAY)
    assert shelf.left(1) == ALL
    _twice(collecting, 8 * DAY)
    assert shelf.left(1) == {"evidence"}


def test_each_stream_has_its_own_retention(database: Database, shelf: Shelf, collecting: Collect) -> None:
    _reject(database, shelf.version(1, "evaluated"))
    _twice(collecting, 29 * DAY, keep_rejected={rows.STREAM: 30 * DAY})
    assert shelf.left(1) == ALL
    _twice(collecting, 2 * DAY, keep_rejected={rows.STREAM: DAY})
    assert shelf.left(1) == {"evidence"}


def test_bytes_go_an_hour_after_the_mark_and_not_before(shelf: Shelf, collecting: Collect) -> None:
    shelf.manifest("unused")
    assert len(collecting(2 * HOUR).marked) == 2
    assert collecting(2 * HOUR + 0.9 * HOUR).deleted == ()
    assert len(collecting(3 * HOUR).deleted) == 2


def test_a_dry_run_lists_what_would_go_and_touches_nothing(
    shelf: Shelf, store: ArtifactStore, collecting: Collect
) -> None:
    made = shelf.manifest("unused")
    expected = {made.hash, made.entries[0].object_hash}
    assert {one.hash for one in collecting(2 * HOUR, dry_run=True).marked} == expected
    collecting(2 * HOUR)
    listed = collecting(3 * HOUR, dry_run=True)
    assert ({one.hash for one in listed.deleted}, listed.marked) == (expected, ())
    assert listed.deleted_bytes == made.bytes + made.stored_bytes
    verify_manifest(store, made.hash)


def test_what_is_used_again_before_the_hour_is_over_stays(
    database: Database, shelf: Shelf, store: ArtifactStore, collecting: Collect
) -> None:
    made = shelf.manifest("unused")
    collecting(2 * HOUR)
    with database.write() as session:
        manifests.register(session, made)
        rows.add_artifact(session, rows.add_version(session, 1), "answer/model", made.hash)
    assert collecting(4 * HOUR) == Collected(marked=(), deleted=())
    verify_manifest(store, made.hash)


def test_what_a_version_names_again_without_registering_is_unmarked_by_the_next_run(
    database: Database, shelf: Shelf, collecting: Collect
) -> None:
    made = shelf.manifest("unused")
    collecting(2 * HOUR)
    with database.write() as session:
        rows.add_artifact(session, rows.add_version(session, 1), "answer/model", made.hash)
    collecting(4 * HOUR)
    with database.read() as session:
        assert session.get_one(StoredObject, made.hash).marked_at is None


def test_an_object_asked_for_during_the_deletion_is_put_back(
    shelf: Shelf, store: ArtifactStore, collecting: Collect
) -> None:
    made = shelf.manifest("unused")
    collecting(2 * HOUR)
    later = (now() + 3 * HOUR).timestamp()
    for name in (made.hash, made.entries[0].object_hash):
        os.utime(store.path(name), (later, later))
    assert collecting(3 * HOUR).deleted == ()
    verify_manifest(store, made.hash)


def test_deleted_bytes_that_come_back_are_known_again(
    database: Database, shelf: Shelf, store: ArtifactStore, tmp_path: Path, collecting: Collect
) -> None:
    made = shelf.manifest("unused")
    _twice(collecting, 2 * HOUR)
    with database.write() as session:
        manifests.register(session, store.add_folder(tmp_path / "unused"))
        assert manifests.is_available(session, made.hash)
    verify_manifest(store, made.hash)


def test_who_no_longer_leads_deletes_nothing(database: Database, shelf: Shelf, store: ArtifactStore) -> None:
    made = shelf.manifest("unused")
    epoch = leases.acquire(database, "me", 60)
    leases.acquire(database, "me", 60)
    with pytest.raises(LeaseLost):
        collect.collect(database, store, epoch=epoch, at=now() + DAY)
    verify_manifest(store, made.hash)


@pytest.mark.parametrize("where", ["spec", "artifacts", "result"])
def test_what_an_unfinished_job_speaks_of_is_kept(
    database: Database, shelf: Shelf, collecting: Collect, where: str
) -> None:
    made = shelf.manifest("unused")
    with database.write() as session:
        spoken_of: dict[str, Any] = {where: {"model": {"path": f"manifest:{made.hash}"}}}
        rows.add_job(session, state="running", **spoken_of)
    assert _twice(collecting, 30 * DAY) == Collected(marked=(), deleted=())


def test_snapshots_eval_sets_and_results_are_kept_until_the_stream_is_purged(
    database: Database, shelf: Shelf, store: ArtifactStore, collecting: Collect
) -> None:
    snapshot, eval_set, results = (store.add_bytes(text) for text in (b"snapshot", b"eval set", b"results"))
    with database.write() as session:
        for stored in (snapshot, eval_set, results):
            manifests.register_object(session, stored)
        rows.add_batch(session, snapshot_hash=snapshot.hash)
        rows.add_evaluation(session, rows.add_version(session, 1), eval_set.hash, results_hash=results.hash)
    assert _twice(collecting, 365 * DAY).marked == ()
    _purge(database)
    assert len(_twice(collecting, 365 * DAY).deleted) == 3


def _purge(database: Database) -> None:
    with database.write() as session:
        stream = session.get_one(Stream, rows.STREAM)
        move(session, stream, "archived", actor="me", reason="r")
        events.record(
            session,
            stream_id=stream.id,
            subject="stream",
            subject_id=stream.id,
            action=collect.PURGED,
            actor="me",
            reason="",
        )


def test_files_that_sql_never_heard_of_go_after_a_week(store: ArtifactStore, collecting: Collect) -> None:
    stored = store.add_bytes(b"left by a crash")
    collecting(6 * DAY)
    assert store.has(stored.hash)
    collecting(8 * DAY)
    assert not store.has(stored.hash)


def test_half_written_files_go_after_an_hour(store: ArtifactStore, collecting: Collect) -> None:
    (store.root / "tmp" / "half").write_bytes(b"half")
    collecting(timedelta(0))
    assert (store.root / "tmp" / "half").exists()
    collecting(2 * HOUR)
    assert not (store.root / "tmp" / "half").exists()


def test_nothing_of_the_lineage_is_deleted_from_sql(database: Database, shelf: Shelf, collecting: Collect) -> None:
    shelf.version(1, "retired")
    with database.read() as session:
        before = session.scalars(select(StoredObject.hash).order_by(StoredObject.hash)).all()
    _twice(collecting, 30 * DAY)
    with database.read() as session:
        assert session.scalars(select(StoredObject.hash).order_by(StoredObject.hash)).all() == before


def test_times_are_real_by_default(database: Database, store: ArtifactStore, shelf: Shelf) -> None:
    shelf.manifest("young")
    epoch = leases.acquire(database, "me", 60)
    assert collect.collect(database, store, epoch=epoch) == Collected(marked=(), deleted=())
