"""Streams as they are shown, each setting with its origin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.errors import Conflict
from orchestrator.flow import publication, records
from orchestrator.service.origins import DEFAULT, ROOT, leaves, strategy_origin
from orchestrator.service.records import SettingRecord, StreamDetail, StreamRecord
from orchestrator.service.views import common
from orchestrator.service.views.triggers import trigger_records
from storage import publishing
from storage.tables import Batch, Stream, StreamRevision, Trigger, Version
from strategies.chooser import choice
from strategies.chooser.choice import StrategySettings
from strategies.settings.composition import Composition

NO_ANCHOR = "no anchor: forgetting of what the base knows cannot be seen; set anchor to a file that stands for it"
STAND_IN = (
    "no anchor: texts sampled from the model stand in for one, in replay and in the gate; set anchor to a file of real"
    " ones"
)


def list_streams(app: App, *, archived: bool, limit: int) -> list[StreamRecord]:
    """Streams by name; archived ones only if asked for."""
    query = select(Stream).order_by(Stream.name, Stream.created_at).limit(min(limit, common.MAX_PAGE))
    if not archived:
        query = query.where(Stream.archived_at.is_(None))
    with app.database.read() as session:
        return stream_records(session, session.scalars(query).all())


def show_stream(app: App, name: str) -> StreamDetail:
    """One stream: settings with origins, triggers, live version, what waits."""
    with app.database.read() as session:
        row = common.find_stream(session, name)
        revision = records.revision_of(session, row.id)
        waiting = _batches_in(session, row.id)
        decision = records.open_decision(session, row.id)
        return StreamDetail(
            **stream_records(session, [row])[0].model_dump(),
            settings=explained(revision.settings, revision.origins),
            triggers=tuple(trigger_records(session, [row])),
            pending=tuple(one for one, state in waiting if state == "pending"),
            held=held_batches(session, row.id),
            open_decision=None if decision is None else decision.id,
            published=_published(app, row.name, revision.settings),
            warnings=warnings_about(revision.settings),
        )


def stream_records(session: Session, rows: Sequence[Stream]) -> list[StreamRecord]:
    """The rows with their live version and pending data, in four queries however many there are."""
    ids = [row.id for row in rows]
    revisions = _revisions(session, ids)
    live = {
        row.stream_id: row.number
        for row in session.execute(
            select(Version.stream_id, Version.number).where(Version.stream_id.in_(ids), Version.state == "live")
        )
    }
    pending = _pending(session, ids)
    fires = _next_fires(session, ids)
    return [
        _record(
            row, revisions[row.id], live=live.get(row.id), pending=pending.get(row.id, (0, 0)), fire=fires.get(row.id)
        )
        for row in rows
    ]


def explained(settings: dict[str, Any], origins: dict[str, Any]) -> tuple[SettingRecord, ...]:
    """Each leaf of the settings under its dotted key, with its origin; ``default`` where nobody set it.

    Of the strategy all screws are shown: those that nobody turned are as the named strategy has them, or yet to be
    chosen.
    """
    chosen = StrategySettings.model_validate(settings["strategy"])
    strategy = {**dict.fromkeys(Composition.model_fields), **choice.resolved(chosen)}
    strategy = {"name": strategy.pop("name"), **strategy}
    return tuple(
        SettingRecord(
            key=key,
            value=value,
            origin=strategy_origin(key, chosen, strategy, origins)
            if key.startswith(f"{ROOT}.")
            else _origin(key, origins),
        )
        for key, value in leaves({**settings, ROOT: strategy})
    )


def warnings_about(settings: dict[str, Any]) -> tuple[str, ...]:
    """What the owner of a stream should know about its settings."""
    if settings.get("anchor") is not None:
        return ()
    return (STAND_IN if settings.get("task") == "causal-lm" else NO_ANCHOR,)


def upload_limit(app: App, name: str) -> int:
    """Bytes that one pushed file of this stream may have.

    Raises:
        NotFound: no such stream.
        Conflict: the stream takes no data now.
    """
    with app.database.read() as session:
        stream = records.stream_by_name(session, name)
        check_takes_data(stream)
        return records.settings_of(session, stream.id).limits.max_file_bytes


def check_takes_data(stream: Stream) -> None:
    """Refuse data for a stream that is not there yet.

    Raises:
        Conflict: it takes no data now.
    """
    if stream.state not in ("active", "paused"):
        raise Conflict(
            f"stream {stream.name!r} is {stream.state} and takes no data; `rekindle stream show {stream.name}` says why"
        )


def held_batches(session: Session, stream_id: str) -> tuple[int, ...]:
    """The data batches that are held."""
    return tuple(one for one, state in _batches_in(session, stream_id) if state == "held")


def _origin(key: str, origins: dict[str, Any]) -> str:
    parts = key.split(".")
    for length in range(len(parts), 0, -1):
        origin = origins.get(".".join(parts[:length]))
        if isinstance(origin, str):
            return origin
    return DEFAULT


def _record(
    row: Stream, revision: StreamRevision, *, live: int | None, pending: tuple[int, int], fire: Any
) -> StreamRecord:
    settings = revision.settings
    return StreamRecord(
        name=row.name,
        id=row.id,
        task=row.task,
        state=row.state,
        model=settings["model"],
        strategy=settings["strategy"]["name"],
        live=live,
        pending_batches=pending[0],
        pending_documents=pending[1],
        next_fire=fire,
        revision=revision.number,
        error=row.error,
        created_at=row.created_at,
    )


def _revisions(session: Session, ids: list[str]) -> dict[str, StreamRevision]:
    newest = (
        select(func.max(StreamRevision.id)).where(StreamRevision.stream_id.in_(ids)).group_by(StreamRevision.stream_id)
    )
    rows = session.scalars(select(StreamRevision).where(StreamRevision.id.in_(newest)))
    return {row.stream_id: row for row in rows}


def _pending(session: Session, ids: list[str]) -> dict[str, tuple[int, int]]:
    query = (
        select(Batch.stream_id, func.count(), func.sum(Batch.train_documents))
        .where(Batch.stream_id.in_(ids), Batch.kind == "data", Batch.state == "pending")
        .group_by(Batch.stream_id)
    )
    return {stream: (count, int(documents or 0)) for stream, count, documents in session.execute(query)}


def _next_fires(session: Session, ids: list[str]) -> dict[str, Any]:
    query = (
        select(Trigger.stream_id, func.min(Trigger.next_at))
        .where(Trigger.stream_id.in_(ids), Trigger.state == "active")
        .group_by(Trigger.stream_id)
    )
    return dict(session.execute(query).all())


def _batches_in(session: Session, stream_id: str) -> list[tuple[int, str]]:
    query = (
        select(Batch.id, Batch.state)
        .where(Batch.stream_id == stream_id, Batch.kind == "data", Batch.state.in_(("pending", "held")))
        .order_by(Batch.id)
    )
    return [(batch_id, state) for batch_id, state in session.execute(query.limit(common.MAX_PAGE))]


def _published(app: App, name: str, settings: dict[str, Any]) -> str | None:
    directory = publication.directory_of(app, name, settings["publish"]["directory"])
    return None if publishing.live_target(directory) is None else str(directory / publishing.LIVE)
