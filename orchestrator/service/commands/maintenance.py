"""Housekeeping by hand: gc and backup."""

from __future__ import annotations

from pathlib import Path

from orchestrator.app import App
from orchestrator.errors import BadInput
from orchestrator.flow import housekeeping
from orchestrator.service.records import BackupRecord, CollectRecord
from storage import backup as backups
from storage import events
from strategies.settings import Closed


def collect(app: App, *, dry_run: bool, actor: str) -> CollectRecord:
    """Mark bytes that nothing needs, and delete those marked an hour ago and still not needed.

    Raises:
        Unavailable: this daemon no longer leads.
    """
    done = housekeeping.collect(app, dry_run=dry_run)
    record = CollectRecord(
        dry_run=dry_run,
        marked=len(done.marked),
        marked_bytes=sum(one.bytes for one in done.marked),
        deleted=len(done.deleted),
        deleted_bytes=done.deleted_bytes,
    )
    if not dry_run:
        _record(app, "gc", record, actor=actor)
    return record


def backup(app: App, directory: Path, *, actor: str) -> BackupRecord:
    """Copy the database and the artifacts to a new folder while everything goes on.

    Raises:
        BadInput: the folder's path is not absolute.
        Conflict: the folder is not empty, or cannot be written.
    """
    if not directory.is_absolute():
        raise BadInput(f"{directory} is not absolute; the daemon has a working folder of its own")
    done = backups.backup(app.database, app.store, directory)
    record = BackupRecord(
        directory=str(done.directory),
        database=None if done.database is None else str(done.database),
        objects=done.objects,
        bytes=done.bytes,
    )
    _record(app, "backup", record, actor=actor)
    return record


def _record(app: App, action: str, record: Closed, *, actor: str) -> None:
    with app.database.write() as session:
        events.record(
            session,
            stream_id=None,
            subject="home",
            subject_id="home",
            action=action,
            actor=actor,
            reason="asked for",
            details=record.model_dump(mode="json"),
        )
