"""Sources of streams: what settles there becomes a batch, whatever is wrong with another stream."""

from __future__ import annotations

import time
from datetime import timedelta

from sqlalchemy import select

from storage.tables import Batch, StreamRevision
from tests.flow.harness import Daemon, write_documents


def test_a_stream_with_unreadable_settings_keeps_no_other_from_its_source(daemon: Daemon) -> None:
    incoming = daemon.root / "incoming"
    incoming.mkdir()
    daemon.add_stream(name="a")
    daemon.add_stream(source={"uri": str(incoming), "poll_seconds": 1, "settle_seconds": 0})
    with daemon.app.database.write() as session:
        first = session.scalars(select(StreamRevision).order_by(StreamRevision.id)).first()
        assert first is not None
        first.settings = {**first.settings, "task": "weather"}
    write_documents(incoming / "monday.jsonl", "new words of the day", 40)
    deadline = time.monotonic() + 60
    while not (found := batches(daemon)):
        assert time.monotonic() < deadline
        daemon.engine.turn()
        daemon.clock.offset += timedelta(seconds=2)
        time.sleep(0.1)
    assert found == ["monday.jsonl"]
    assert "weather" in daemon.app.faults["arrival"]


def batches(daemon: Daemon) -> list[str]:
    with daemon.app.database.read() as session:
        return list(session.scalars(select(Batch.name).where(Batch.kind == "data")))
