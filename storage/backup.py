"""Copies to fall back on: a folder laid out like the home, so that a daemon can be started on it."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from storage import schema
from storage.artifacts import ArtifactStore
from storage.building import NO_LINKS
from storage.database import Database, now
from storage.errors import BackupRefused
from storage.files import fsync_dir, sha256_file, write_json_atomic

DATABASE = "rekindle.db"
ARTIFACTS = "artifacts"
MANIFEST = "backup.json"


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What was copied. ``database`` is None for PostgreSQL, which pg_dump copies: run it before this."""

    directory: Path
    database: Path | None
    objects: int
    bytes: int


def backup(database: Database, store: ArtifactStore, directory: Path) -> Backup:
    """Copy the database while it is used, then every object: by hard links, or bytes on another file system.

    In this order each object that the copied database needs is copied too. ``backup.json`` is written last: a backup
    without it was interrupted.

    Raises:
        BackupRefused: ``directory`` is not empty, or cannot be written.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise BackupRefused(f"{directory} is not empty; name a new folder")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        copied = _copy_database(database, directory)
        objects = _copy_objects(store, directory / ARTIFACTS / "objects")
        for folder in sorted({path.parent for path in objects}):
            fsync_dir(folder)
        done = Backup(
            directory=directory,
            database=copied,
            objects=len(objects),
            bytes=sum(path.stat().st_size for path in objects),
        )
        _finish(done)
    except OSError as error:
        raise BackupRefused(
            f"the backup in {directory} failed ({error}); remove it, see to the disk, repeat"
        ) from error
    return done


def _copy_database(database: Database, directory: Path) -> Path | None:
    if database.path is None:
        return None
    schema.copy_sqlite(database.path, directory / DATABASE)
    return directory / DATABASE


def _copy_objects(store: ArtifactStore, root: Path) -> list[Path]:
    copied = []
    for stored, _ in store.objects.list():
        with contextlib.suppress(FileNotFoundError):  # collected meanwhile, so the copied database does not need it
            copied.append(_copy(store.objects.place(stored.hash), root))
    return copied


def _copy(source: Path, root: Path) -> Path:
    target = root / source.parent.name / source.name
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with source.open("rb") as original, target.open("xb") as copy:
            shutil.copyfileobj(original, copy)
            copy.flush()
            os.fchmod(copy.fileno(), 0o444)
            os.fsync(copy.fileno())
    return target


def _finish(done: Backup) -> None:
    with contextlib.suppress(FileNotFoundError):
        fsync_dir(done.directory / ARTIFACTS / "objects")
    document = {
        "format": 1,
        "created_at": now().isoformat(),
        "schema": schema.head(),
        "database_sha256": None if done.database is None else sha256_file(done.database),
        "objects": done.objects,
        "bytes": done.bytes,
    }
    write_json_atomic(done.directory / MANIFEST, document)
