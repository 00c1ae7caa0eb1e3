"""Step one: files that appear at a stream's source become batches, one ingest a stream at a time."""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from sqlalchemy import func, select

from orchestrator.app import App
from orchestrator.errors import RekindleError
from orchestrator.flow import records
from orchestrator.ingest import run as ingest
from orchestrator.ingest.pools import maintain_pools
from orchestrator.ingest.sources import Found, Watcher
from orchestrator.settings import StreamSettings
from storage import events
from storage.tables import EvalSet, Stream

log = structlog.get_logger()


@dataclass(kw_only=True)
class _Watch:
    """A stream's source and when it is looked at next."""

    uri: str
    watcher: Watcher
    due: float = 0.0
    complaint: str = ""


class Arrivals:
    """Looks at the sources of all streams; what it remembers can be lost, for arrival is exactly once by content."""

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}

    def step(self, app: App) -> bool:
        """Start what is due; reading itself happens in the background."""
        with app.database.read() as session:
            streams = [(one, records.settings_of(session, one.id)) for one in records.working_streams(session)]
        pooled = [_pool(app, stream, settings) for stream, settings in streams]
        started = [
            self._look(app, stream, settings)
            for stream, settings in streams
            if settings.source.uri is not None and stream.state == "active"
        ]
        return any([*pooled, *started])

    def _look(self, app: App, stream: Stream, settings: StreamSettings) -> bool:
        watch = self._watch(app, stream, settings)
        if app.clock.monotonic() < watch.due:
            return False
        watch.due = app.clock.monotonic() + settings.source.poll_seconds
        return app.background.start(f"arrival:{stream.id}", lambda: _take(app, stream, watch))

    def _watch(self, app: App, stream: Stream, settings: StreamSettings) -> _Watch:
        uri = settings.source.uri or ""
        known = self._watches.get(stream.id)
        if known is None or known.uri != uri:
            watcher = Watcher(
                uri,
                settle_s=settings.source.settle_seconds,
                cache=app.home.cache / f"seen-{stream.id}.json",
                monotonic=app.clock.monotonic,
            )
            known = self._watches[stream.id] = _Watch(uri=uri, watcher=watcher)
        return known


def _take(app: App, stream: Stream, watch: _Watch) -> None:
    """Ingest what has settled, in the order of names; a source that cannot be read is complained of once."""
    try:
        for found in watch.watcher.poll():
            _take_one(app, stream, watch.watcher, found)
        watch.complaint = ""
    except RekindleError as error:
        if error.message != watch.complaint:
            watch.complaint = error.message
            log.warning("a source cannot be read", action="source_failed", stream=stream.name, error=error.message)
            with app.database.write() as session:
                events.record(
                    session,
                    stream_id=stream.id,
                    subject="stream",
                    subject_id=stream.id,
                    action="alert",
                    actor="daemon",
                    reason=f"source {watch.uri}: {error.message}",
                )


def _take_one(app: App, stream: Stream, watcher: Watcher, found: Found) -> None:
    report = ingest.spawn(app, stream.id, path=found.location, name=found.name, actor="source")
    watcher.done(found)
    log.info(
        "arrival", action="arrival", stream=stream.name, file=found.name, outcome=report.outcome, why=report.reason
    )
    app.wake.set()


def _pool(app: App, stream: Stream, settings: StreamSettings) -> bool:
    """Move the eval sets of older batches into pools, while no decision is measured on them."""
    with app.database.read() as session:
        apart = select(func.count()).where(EvalSet.stream_id == stream.id, EvalSet.kind == "batch", EvalSet.active)
        count = session.scalar(apart) or 0
        busy = records.open_decision(session, stream.id) is not None
    if busy or count <= settings.retention.evaluated_batches:
        return False
    with app.database.write() as session:
        maintain_pools(session, app.store, session.get_one(Stream, stream.id), settings, actor="daemon")
    return True
