"""The live model on disk: a folder a version, and a link that is swapped after the SQL commit.

The promotions row is the truth; the link follows it, and start-up and every sweep repair it. The previous folder stays
for a day. A folder says which manifests it was built from: only one that was built from a version counts as that
version's, and nothing else is removed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.errors import Conflict
from orchestrator.flow import records
from orchestrator.flow.alerts import alert
from orchestrator.settings import StreamSettings
from storage import lineage, publishing
from storage.errors import DatabaseUnavailable
from storage.folders import manifests_in
from storage.tables import Stream, StreamRevision, Version

POINTINGS = 3
"""How often a link is pointed anew because another version became live in between."""
_links = threading.Lock()
"""Held while links and folders change according to what SQL says, so that no thread acts on an older word."""


def directory_of(app: App, stream_name: str, chosen: str | None = None) -> Path:
    """Where a stream's models are published."""
    return Path(chosen) if chosen else app.home.published / stream_name


def folder_name(number: int) -> str:
    """The folder of a version within the stream's."""
    return f"v{number}"


def check_directory(app: App, session: Session, stream: Stream) -> Path:
    """Where the stream publishes: a folder belongs to the stream whose settings named it first.

    Raises:
        Conflict: it belongs to another stream.
    """
    directory = _directory(app, session, stream)
    others = session.scalars(select(Stream).where(Stream.archived_at.is_(None), Stream.id != stream.id)).all()
    since = _since(app, session, stream, directory)
    for other in others:
        if _directory(app, session, other) == directory and _since(app, session, other, directory) < since:
            raise Conflict(f"{directory} belongs to stream {other.name!r}; give another publish.directory")
    return directory


def is_ready(app: App, stream_name: str, number: int) -> bool:
    """Whether the version's own folder is complete (folders appear whole or not at all), or none is wanted."""
    with app.database.read() as session:
        stream = records.stream_by_name(session, stream_name)
        if not _publishes(session, stream.id):
            return True
        version = lineage.version_by_number(session, stream.id, number)
        directory = _directory(app, session, stream)
        own = None if version is None else _answer(session, version.id)
    return own is not None and manifests_in(directory / folder_name(number)) == publishing.in_order(own)


def prepare(app: App, stream_id: str, version_id: int) -> Path:
    """Make the version's folder, by hard links where the file system is the same and copies of tensors with patches.

    One with damage is made anew.

    Raises:
        Conflict: the folder belongs to another stream.
        OSError: the folder cannot be written.
        StorageError: an object is damaged or gone, or something else stands there.
    """
    with app.database.read() as session:
        directory = check_directory(app, session, session.get_one(Stream, stream_id))
        answer = _answer(session, version_id)
        number = session.get_one(Version, version_id).number
    return publishing.publish(app.store, answer, directory, folder_name(number))


def prepare_if_published(app: App, stream_id: str, version_id: int) -> None:
    """As :func:`prepare`, of a stream that publishes."""
    with app.database.read() as session:
        publishes = _publishes(session, stream_id)
    if publishes:
        prepare(app, stream_id, version_id)


def point(app: App, stream_id: str) -> None:
    """Let the live link name the version that SQL says is live; harmless when it does already.

    Raises:
        As :func:`prepare`.
    """
    for _ in range(POINTINGS):
        live = _live(app, stream_id)
        if live is None:
            return
        folder = prepare(app, stream_id, live)
        with _links:
            if _live(app, stream_id) == live and folder.is_dir():
                publishing.point_live(folder.parent, folder.name)
                return


def follow(app: App, stream_id: str) -> None:
    """As :func:`point`, for a promotion that is written: what fails is an alert, and the sweep tries again."""
    _tried(app, stream_id, partial(point, app))


def withdraw(app: App, stream_id: str, *, folders: bool) -> None:
    """Take away the live link of an archived stream, and with ``folders`` all that was published of it."""
    with _links, app.database.read() as session:
        stream = session.get_one(Stream, stream_id)
        _withdraw(app, session, stream, _directory(app, session, stream), folders=folders)


def withdraw_former(app: App, stream_id: str, before: StreamSettings) -> None:
    """Take away the link that a stream had under its former settings, where it now has none or has it elsewhere."""
    with _links, app.database.read() as session:
        stream = session.get_one(Stream, stream_id)
        former = directory_of(app, stream.name, before.publish.directory).resolve()
        if before.publish.enabled and not (
            _publishes(session, stream_id) and _directory(app, session, stream) == former
        ):
            _withdraw(app, session, stream, former, folders=False)


def _withdraw(app: App, session: Session, stream: Stream, directory: Path, *, folders: bool) -> None:
    """Unless another stream publishes there now."""
    others = session.scalars(select(Stream).where(Stream.archived_at.is_(None), Stream.id != stream.id)).all()
    if all(_directory(app, session, other) != directory for other in others):
        publishing.withdraw(directory, own=_own(session, [stream]), folders=folders)


def repair(app: App) -> None:
    """Every stream's link follows its promotions; a stream that cannot be repaired holds up no other."""
    _each(app, partial(point, app))


def sweep(app: App) -> None:
    """Remove folders of versions that have not been live for the stream's keep_hours."""
    _each(app, partial(_prune, app))


def _each(app: App, task: Callable[[str], None]) -> None:
    with app.database.read() as session:
        streams = [stream.id for stream in records.working_streams(session)]
    for stream_id in streams:
        _tried(app, stream_id, task)


def _tried(app: App, stream_id: str, task: Callable[[str], None]) -> None:
    try:
        task(stream_id)
    except DatabaseUnavailable:
        raise
    except Exception as error:  # whatever is wrong with one stream must not keep the daemon from its start
        alert(app, f"the published models need attention: {error}", stream_id=stream_id)


def _prune(app: App, stream_id: str) -> None:
    with _links:
        with app.database.read() as session:
            stream = session.get_one(Stream, stream_id)
            directory = check_directory(app, session, stream)
            keep_hours = records.settings_of(session, stream_id).publish.keep_hours
            live = lineage.live_version(session, stream_id)
            earlier = session.scalars(select(Stream).where(Stream.archived_at.is_not(None))).all()
            here = [one for one in earlier if _directory(app, session, one) == directory]
            own = _own(session, [stream, *here])
            if live is not None:
                own.discard((folder_name(live.number), publishing.in_order(_answer(session, live.id))))
        publishing.prune(directory, own=own, older_than_s=keep_hours * 3600)


def _publishes(session: Session, stream_id: str) -> bool:
    return bool(records.revision_of(session, stream_id).settings["publish"].get("enabled", True))


def _live(app: App, stream_id: str) -> int | None:
    """The version that the link has to name; None where there is to be no link."""
    with app.database.read() as session:
        if session.get_one(Stream, stream_id).archived_at is not None or not _publishes(session, stream_id):
            return None
        live = lineage.live_version(session, stream_id)
        return None if live is None else live.id


def _answer(session: Session, version_id: int) -> dict[str, str]:
    artifacts = records.artifacts_of(session, version_id)
    return {role: one for role, one in artifacts.items() if role.startswith("answer/")}


def _own(session: Session, streams: list[Stream]) -> set[publishing.Folder]:
    """Every folder that may have been published of these streams."""
    versions = session.scalars(select(Version).where(Version.stream_id.in_([stream.id for stream in streams]))).all()
    return {(folder_name(one.number), publishing.in_order(_answer(session, one.id))) for one in versions}


def _since(app: App, session: Session, stream: Stream, directory: Path) -> tuple[datetime, str]:
    """Since when a stream's settings name the directory, in an order that no two streams share."""
    revisions = session.scalars(
        select(StreamRevision).where(StreamRevision.stream_id == stream.id).order_by(StreamRevision.number.desc())
    )
    since = stream.created_at
    for revision in revisions:
        if directory_of(app, stream.name, revision.settings["publish"]["directory"]).resolve() != directory:
            break
        since = revision.created_at
    return since, stream.id


def _directory(app: App, session: Session, stream: Stream) -> Path:
    chosen = records.revision_of(session, stream.id).settings["publish"]["directory"]
    return directory_of(app, stream.name, chosen).resolve()
