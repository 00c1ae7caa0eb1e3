"""The live model on disk: a folder a version, and a link that is swapped after the SQL commit.

The promotions row is the truth; the link follows it, and start-up repairs it. The previous folder stays for a day.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.app import App
from orchestrator.flow import records
from storage import lineage, publishing
from storage.tables import Stream, Version


def directory_of(app: App, stream_name: str, chosen: str | None = None) -> Path:
    """Where a stream's models are published."""
    return Path(chosen) if chosen else app.home.published / stream_name


def folder_name(number: int) -> str:
    """The folder of a version within the stream's."""
    return f"v{number}"


def is_ready(app: App, stream_name: str, number: int) -> bool:
    """Whether the version's folder is complete (folders appear whole or not at all)."""
    with app.database.read() as session:
        stream = records.stream_by_name(session, stream_name)
        return (
            _directory(app, stream, records.settings_of(session, stream.id).publish.directory) / folder_name(number)
        ).is_dir()


def prepare(app: App, stream_id: str, version_id: int) -> Path:
    """Make the version's folder, by hard links where the file system is the same.

    Raises:
        OSError: the folder cannot be written.
        StorageError: an object is damaged or gone.
    """
    with app.database.read() as session:
        stream = session.get_one(Stream, stream_id)
        version = session.get_one(Version, version_id)
        artifacts = records.artifacts_of(session, version_id)
        directory = _directory(app, stream, records.settings_of(session, stream_id).publish.directory)
    answer = {role: one for role, one in artifacts.items() if role.startswith("answer/")}
    return publishing.publish(app.store, answer, directory, folder_name(version.number))


def point(app: App, stream_id: str) -> None:
    """Let the live link name the version that SQL says is live; harmless when it does already."""
    with app.database.read() as session:
        stream = session.get_one(Stream, stream_id)
        live = lineage.live_version(session, stream_id)
        directory = _directory(app, stream, records.settings_of(session, stream_id).publish.directory)
    if live is None:
        return
    name = folder_name(live.number)
    if not (directory / name).is_dir():
        prepare(app, stream_id, live.id)
    publishing.point_live(directory, name)


def repair(app: App) -> None:
    """Start-up: every stream's link follows its promotions."""
    with app.database.read() as session:
        streams = [stream.id for stream in records.working_streams(session)]
    for stream_id in streams:
        point(app, stream_id)


def sweep(app: App) -> None:
    """Remove folders of versions that have not been live for the stream's keep_hours."""
    with app.database.read() as session:
        streams = [
            (_directory(app, stream, settings.publish.directory), settings.publish.keep_hours)
            for stream in records.working_streams(session)
            if (settings := records.settings_of(session, stream.id))
        ]
    for directory, keep_hours in streams:
        publishing.prune(directory, keep=(), older_than_s=keep_hours * 3600)


def _directory(app: App, stream: Stream, chosen: str | None) -> Path:
    return directory_of(app, stream.name, chosen)
