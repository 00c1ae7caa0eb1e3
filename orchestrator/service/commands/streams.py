"""Registering streams, changing them, pausing and removing them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator import base_model
from orchestrator.app import App
from orchestrator.errors import Conflict
from orchestrator.flow import evaluation, publication, records, registration
from orchestrator.jobs import queue
from orchestrator.service import settings as reading
from orchestrator.service.origins import by_leaf, carried
from orchestrator.service.records import SettingsPreview, StreamDetail, StreamRecord, VersionRecord
from orchestrator.service.views import common
from orchestrator.service.views import streams as views
from orchestrator.service.views.versions import version_records
from orchestrator.settings import StreamSettings
from storage import events
from storage.collect import PURGED
from storage.moves import move
from storage.states import JOB_UNFINISHED
from storage.tables import Job, Stream, Trigger, Version

REMOVED = "the stream was removed"


def add_stream(app: App, raw: Mapping[str, Any], origins: Mapping[str, str], *, actor: str) -> StreamDetail:
    """Register a stream; the base model is stored and measured in the background.

    Raises:
        BadInput: the settings are wrong; one line names the key.
        Conflict: the name is taken.
    """
    settings = reading.parse(raw)
    registration.add_stream(app, settings, origins=by_leaf(raw, origins), actor=actor)
    return views.show_stream(app, settings.name)


def preview_stream(raw: Mapping[str, Any], origins: Mapping[str, str]) -> SettingsPreview:
    """What the settings would come to; nothing is registered.

    Raises:
        BadInput: the settings are wrong.
    """
    settings = reading.parse(raw)
    registration.check(settings)
    base_model.check(settings)
    return _preview(settings, by_leaf(raw, origins))


def set_stream(
    app: App, name: str, changes: Mapping[str, Any], origins: Mapping[str, str], *, actor: str, dry_run: bool
) -> StreamDetail | SettingsPreview:
    """A new revision of the stream's settings; jobs that run keep theirs.

    Raises:
        NotFound: no such stream.
        BadInput: a key or value is wrong, or is fixed for the life of a stream.
        Conflict: the settings were changed by somebody else meanwhile.
    """
    with app.database.read() as session:
        stream = records.stream_by_name(session, name)
        revision = records.revision_of(session, stream.id)
    settings = reading.parse(reading.with_changes(revision.settings, changes))
    explicit = {**carried(revision.origins, revision.settings, changes), **by_leaf(changes, origins)}
    if dry_run:
        registration.check_change(app, name, settings)
        return _preview(settings, explicit)
    registration.change_stream(app, name, settings, since=revision.id, origins=explicit, actor=actor)
    return views.show_stream(app, name)


def rebase(app: App, name: str, *, model: str, revision: str | None, actor: str) -> VersionRecord:
    """A new root version on another base model, measured and gated like a candidate.

    Raises:
        NotFound: no such stream.
        BadInput: the model cannot be had or cannot do the task.
        Conflict: the stream has nothing live yet.
    """
    made = registration.rebase(app, name, model=model, revision=revision, actor=actor)
    with app.database.read() as session:
        stream = records.stream_by_name(session, name)
        return version_records(session, stream, [made])[0]


def pause(app: App, name: str, *, actor: str) -> StreamRecord:
    """No trigger fires and no retrain begins until the stream is resumed; jobs that run go on.

    Raises:
        NotFound: no such stream.
        Conflict: it is not active.
    """
    return _move(app, name, "active", "paused", actor=actor)


def resume(app: App, name: str, *, actor: str) -> StreamRecord:
    """Let a paused stream go on.

    Raises:
        NotFound: no such stream.
        Conflict: it is not paused.
    """
    return _move(app, name, "paused", "active", actor=actor)


def remove(app: App, name: str, *, purge: bool, actor: str) -> StreamRecord:
    """Archive a stream: its jobs end, its triggers go, its name is free; its lineage stays.

    Its live link goes at once. With ``purge`` so does all that was published of it, and gc may take its bytes; an
    archived one can be purged too.

    Raises:
        NotFound: no such stream.
    """
    with app.database.write() as session:
        stream = common.find_stream(session, name) if purge else records.stream_by_name(session, name)
        if stream.state != "archived":
            _archive(app, session, stream, actor=actor)
        if purge:
            _let_bytes_go(session, stream, actor=actor)
        record = views.stream_records(session, [stream])[0]
    publication.withdraw(app, stream.id, folders=purge)
    app.wake.set()
    return record


def _archive(app: App, session: Session, stream: Stream, *, actor: str) -> None:
    _end_work(app, session, stream, actor=actor)
    for trigger in session.scalars(select(Trigger).where(Trigger.stream_id == stream.id, Trigger.state != "removed")):
        move(session, trigger, "removed", actor=actor, reason=REMOVED)
    move(session, stream, "archived", actor=actor, reason="asked for", archived_at=app.clock.now())


def _let_bytes_go(session: Session, stream: Stream, *, actor: str) -> None:
    events.record(
        session,
        stream_id=stream.id,
        subject="stream",
        subject_id=stream.id,
        action=PURGED,
        actor=actor,
        reason="asked for",
    )


def _end_work(app: App, session: Session, stream: Stream, *, actor: str) -> None:
    for job in session.scalars(select(Job).where(Job.stream_id == stream.id, Job.state.in_(JOB_UNFINISHED))):
        queue.cancel(session, job, actor=actor, reason=REMOVED)
    candidates = select(Version).where(Version.stream_id == stream.id, Version.state.in_(("candidate", "evaluated")))
    for candidate in session.scalars(candidates):
        move(session, candidate, "rejected", actor=actor, reason=REMOVED)
    decision = records.open_decision(session, stream.id)
    if decision is not None:
        evaluation.close_decision(app, session, decision.id, result="cancelled", outcome=REMOVED)


def _move(app: App, name: str, since: str, to: str, *, actor: str) -> StreamRecord:
    with app.database.write() as session:
        stream = records.stream_by_name(session, name)
        if stream.state != since:
            raise Conflict(f"stream {name!r} is {stream.state}, not {since}; `rekindle stream show {name}` says more")
        move(session, stream, to, actor=actor, reason="asked for")
        record = views.stream_records(session, [stream])[0]
    app.wake.set()
    return record


def _preview(settings: StreamSettings, origins: Mapping[str, str]) -> SettingsPreview:
    dumped = settings.model_dump(mode="json")
    return SettingsPreview(
        name=settings.name,
        settings=views.explained(dumped, dict(origins)),
        warnings=views.warnings_about(dumped),
    )
