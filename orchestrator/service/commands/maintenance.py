"""Housekeeping by hand: gc and backup."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from orchestrator.app import App
from orchestrator.errors import BadInput
from orchestrator.flow import records
from orchestrator.service.records import BackupRecord, CollectRecord
from storage import backup as backups
from storage import collect as collecting
from storage.tables import Stream


def collect(app: App, *, dry_run: bool, actor: str) -> CollectRecord:
    """Mark bytes that nothing needs, and delete those marked an hour ago and still not needed.

    Raises:
        Unavailable: this daemon no longer leads.
    """
    done = collecting.collect(
        app.database, app.store, epoch=app.epoch, keep_rejected=_retention(app), dry_run=dry_run, at=app.clock.now()
    )
    return CollectRecord(
        dry_run=dry_run,
        marked=len(done.marked),
        marked_bytes=sum(one.bytes for one in done.marked),
        deleted=len(done.deleted),
        deleted_bytes=done.deleted_bytes,
    )


def backup(app: App, directory: Path, *, actor: str) -> BackupRecord:
    """Copy the database and the artifacts to a new folder while everything goes on.

    Raises:
        BadInput: the folder's path is not absolute.
        Conflict: the folder is not empty, or cannot be written.
    """
    if not directory.is_absolute():
        raise BadInput(f"{directory} is not absolute; the daemon has a working folder of its own")
    done = backups.backup(app.database, app.store, directory)
    return BackupRecord(
        directory=str(done.directory),
        database=None if done.database is None else str(done.database),
        objects=done.objects,
        bytes=done.bytes,
    )


def _retention(app: App) -> dict[str, timedelta]:
    """How long each stream keeps the bytes of rejected candidates."""
    with app.database.read() as session:
        return {
            stream_id: timedelta(days=records.settings_of(session, stream_id).retention.keep_rejected_days)
            for stream_id in session.scalars(select(Stream.id))
        }
