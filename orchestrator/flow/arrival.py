"""Step one: files that appear at a stream's source become batches, one ingest a stream at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from sqlalchemy import func, select

from orchestrator.app import App
from orchestrator.errors import RekindleError
from orchestrator.flow import records
from orchestrator.flow.alerts import alert
from orchestrator.flow.each import each
from orchestrator.ingest import run as ingest
from orchestrator.ingest.pools import maintain_pools
from orchestrator.ingest.records import Refused
from orchestrator.ingest.sources import Found, Watcher
from orchestrator.ingest.spool import StillGrowing
from orchestrator.settings import StreamSettings
from storage.tables import Batch, EvalSet, Stream


@dataclass(kw_only=True)
class _Watch:
    """A stream's source and when it is looked at next."""

    stream: Stream
    uri: str
    poll_s: float
    watcher: Watcher
    due: float = 0.0
    complaint: str = ""


class Arrivals:
    """Looks at the sources of all streams; what it remembers can be lost, for arrival is exactly once by content."""

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}

    def step(self, app: App) -> bool:
        """Read anew which sources there are, then look at those that are due."""
        with app.database.read() as session:
            streams = records.working_streams(session)
        active = {one.id for one in streams if one.state == "active"}
        self._watches = {stream_id: watch for stream_id, watch in self._watches.items() if stream_id in active}
        try:
            return each(partial(self._look_after, app), streams)
        finally:
            self.look(app)

    def look(self, app: App) -> bool:
        """Look at the known sources that are due, in the background; what is found wakes the daemon by itself."""
        now = app.clock.monotonic()
        for watch in self._watches.values():
            if now >= watch.due:
                watch.due = now + watch.poll_s
                app.background.start(f"arrival:{watch.stream.id}", partial(_take, app, watch.stream, watch))
        return False

    def _look_after(self, app: App, stream: Stream) -> bool:
        with app.database.read() as session:
            settings = records.settings_of(session, stream.id)
        if settings.source.uri is None:
            self._watches.pop(stream.id, None)
        elif stream.state == "active":
            self._watches[stream.id] = self._watch(app, stream, settings, settings.source.uri)
        return _pool(app, stream, settings)

    def _watch(self, app: App, stream: Stream, settings: StreamSettings, uri: str) -> _Watch:
        known = self._watches.get(stream.id)
        if known is None or (known.uri, known.poll_s) != (uri, settings.source.poll_seconds):
            watcher = Watcher(
                uri,
                settle_s=settings.source.settle_seconds,
                cache=app.home.cache / f"seen-{stream.id}.json",
                monotonic=app.clock.monotonic,
            )
            return _Watch(stream=stream, uri=uri, poll_s=settings.source.poll_seconds, watcher=watcher)
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
            alert(app, f"source {watch.uri}: {error.message}", stream_id=stream.id)


def _take_one(app: App, stream: Stream, watcher: Watcher, found: Found) -> None:
    """A file that is refused is not offered again until it changes; one that still grows is."""
    try:
        report = ingest.spawn(app, stream.id, path=found.location, name=found.name, actor="source")
        if report.outcome == "refused":
            alert(app, f"{found.name} was refused: {report.reason}", stream_id=stream.id)
    except StillGrowing:
        return
    except Refused as error:
        alert(app, f"{found.name} was refused: {error.message}", stream_id=stream.id)
    watcher.done(found)
    app.wake.set()


def _pool(app: App, stream: Stream, settings: StreamSettings) -> bool:
    """Move the eval sets of older batches into pools, while no decision is measured on them."""
    with app.database.read() as session:
        apart = (
            select(func.count())
            .select_from(EvalSet)
            .join(Batch, Batch.id == EvalSet.batch_id)
            .where(EvalSet.stream_id == stream.id, EvalSet.kind == "batch", EvalSet.active, Batch.state == "trained")
        )
        count = session.scalar(apart) or 0
        busy = records.open_decision(session, stream.id) is not None
    if busy or count <= settings.retention.evaluated_batches:
        return False
    with app.database.write() as session:
        maintain_pools(session, app.store, session.get_one(Stream, stream.id), settings, actor="daemon")
    return True
