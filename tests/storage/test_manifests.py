"""SQL's knowledge of the store."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from storage import manifests
from storage.artifacts import ArtifactStore, ManifestRecord
from storage.database import Database, now
from storage.tables import ManifestEntry, StoredObject


@pytest.fixture
def manifest(store: ArtifactStore, tmp_path: Path) -> ManifestRecord:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(1200):
        (source / f"{number}.txt").write_text(str(number))
    return store.add_folder(source)


def test_a_manifest_registers_all_its_objects_and_twice_is_harmless(
    database: Database, manifest: ManifestRecord
) -> None:
    for _ in range(2):
        with database.write() as session:
            manifests.register(session, manifest)
    with database.read() as session:
        counts = [session.scalar(select(func.count()).select_from(table)) for table in (StoredObject, ManifestEntry)]
        assert counts == [1201, 1200]
        assert session.scalar(select(func.sum(StoredObject.bytes))) == manifest.bytes + manifest.stored_bytes


def test_registering_again_takes_marks_away_also_in_the_session(database: Database, manifest: ManifestRecord) -> None:
    with database.write() as session:
        manifests.register(session, manifest)
        session.execute(update(StoredObject).values(marked_at=now(), deleted_at=now()))
        loaded = session.get_one(StoredObject, manifest.hash)
        assert not manifests.is_available(session, manifest.hash)
        manifests.register(session, manifest)
        assert loaded.marked_at is None
        assert manifests.is_available(session, manifest.hash)


def test_a_manifest_with_one_object_deleted_is_not_available(database: Database, manifest: ManifestRecord) -> None:
    with database.write() as session:
        manifests.register(session, manifest)
        session.get_one(StoredObject, manifest.entries[7].object_hash).deleted_at = now()
        session.flush()
        assert not manifests.is_available(session, manifest.hash)
        assert not manifests.is_available(session, "0" * 64)


def test_a_single_object_is_registered(database: Database, store: ArtifactStore) -> None:
    stored = store.add_bytes(b"snapshot")
    with database.write() as session:
        manifests.register_object(session, stored)
        manifests.register_object(session, stored)
    with database.read() as session:
        assert session.get_one(StoredObject, stored.hash).bytes == 8
