"""A backup is a home that a daemon can start on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from sqlalchemy import select

from storage import chain, manifests
from storage.artifacts import ArtifactStore
from storage.backup import Backup, backup
from storage.database import Database
from storage.errors import BackupRefused
from storage.files import read_json, sha256_file
from storage.tables import Stream
from tests.manifests import verify_manifest
from tests.storage import rows


@pytest.fixture
def manifest_hash(database: Database, store: ArtifactStore, tmp_path: Path) -> str:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "file.txt").write_text("kept")
    made = store.add_folder(tmp_path / "source")
    with database.write() as session:
        rows.add_stream(session)
        manifests.register(session, made)
        rows.add_artifact(session, rows.add_version(session, 1), "answer/model", made.hash)
    return made.hash


def _check(done: Backup, manifest_hash: str) -> None:
    restored = ArtifactStore(done.directory / "artifacts")
    verify_manifest(restored, manifest_hash)
    assert (restored.materialise(manifest_hash, done.directory / "out") / "file.txt").read_text() == "kept"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_backup_restores(database: Database, store: ArtifactStore, tmp_path: Path, manifest_hash: str) -> None:
    with database.read() as reading:
        assert reading.scalars(select(Stream.name)).one() == "news"
        done = backup(database, store, tmp_path / "copy")
    copy = Database.open(f"sqlite:///{done.directory / 'rekindle.db'}")
    copy.check_schema()
    with copy.read() as session:
        assert (session.scalars(select(Stream.name)).one(), chain.verify(session)) == ("news", [])
    copy.close()
    _check(done, manifest_hash)


def test_a_backup_tells_what_is_in_it(
    database: Database, store: ArtifactStore, tmp_path: Path, manifest_hash: str
) -> None:
    done = backup(database, store, tmp_path / "copy")
    told = read_json(tmp_path / "copy" / "backup.json")
    expected = None if done.database is None else sha256_file(done.database)
    assert (told["format"], told["objects"], told["database_sha256"]) == (1, 2, expected)
    assert (done.database is None) == (database.dialect == "postgresql")
    _check(done, manifest_hash)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_on_another_file_system_objects_are_copied(
    database: Database, store: ArtifactStore, tmp_path: Path, manifest_hash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)
        done = backup(database, store, tmp_path / "copy")
    assert ArtifactStore(done.directory / "artifacts").path(manifest_hash).stat().st_nlink == 1
    _check(done, manifest_hash)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_folder_with_something_in_it_is_not_written_over(
    database: Database, store: ArtifactStore, tmp_path: Path
) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mine.txt").write_text("mine")
    with pytest.raises(BackupRefused, match="not empty"):
        backup(database, store, tmp_path / "copy")
    assert [path.name for path in (tmp_path / "copy").iterdir()] == ["mine.txt"]
