"""A daemon without its faces: real SQL, files and job processes, a toy model, and a clock that tests move."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from orchestrator.app import App, Resources
from orchestrator.background import Background
from orchestrator.engine import Engine
from orchestrator.flow import decision, records, registration
from orchestrator.home import Home
from orchestrator.ingest.arrival import ingest
from orchestrator.jobs.executors.local import LocalExecutor
from orchestrator.jobs.supervisor import Supervisor
from orchestrator.settings import StreamSettings
from storage import leases
from storage.artifacts import ArtifactStore
from storage.database import Database
from storage.states import JOB_UNFINISHED
from storage.tables import Batch, Decision, Promotion, Version
from tests.flow.toy_job import write_model

BASE = "the old base knows these plain words and a few more of them"
NEW = "fresh topics bring unknown terms into every single later document"


class MovableClock:
    """Real time plus whatever a test adds."""

    def __init__(self) -> None:
        self.offset = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.offset

    def monotonic(self) -> float:
        return time.monotonic() + self.offset.total_seconds()


class WatchedBackground(Background):
    """Says whether a task is under way, so that a test can wait for the last one."""

    def is_busy(self) -> bool:
        with self._lock:
            return bool(self._running)


class Daemon:
    """One daemon in this process; :meth:`settle` takes turns until nothing is left to do."""

    def __init__(self, root: Path, database: Database) -> None:
        self.clock = MovableClock()
        self.root = root
        home = Home(root=root / "home")
        home.create()
        wake = threading.Event()
        self.background = WatchedBackground(on_done=wake.set)
        self.app = App(
            home=home,
            database=database,
            store=ArtifactStore(home.artifacts),
            resources=Resources(cpus=4),
            epoch=leases.acquire(database, str(root), 600),
            clock=self.clock,
            wake=wake,
            background=self.background,
        )
        self.engine = Engine(self.app, Supervisor(self.app, executor=LocalExecutor(module="tests.flow.toy_job")))

    def settle(self, done: Callable[[], bool] = lambda: True, *, timeout_s: float = 240) -> None:
        """Take turns until ``done`` and a few turns bring nothing new."""
        deadline, quiet = time.monotonic() + timeout_s, 0
        while quiet < 5:
            assert time.monotonic() < deadline, "the daemon did not settle"
            changed, faulty = self.engine.turn()
            assert not faulty, self.app.faults
            quiet = quiet + 1 if not changed and done() and self._is_idle() else 0
            if not changed and not quiet:
                # A turn costs what a toy job does: to look without a pause would take the processor from the jobs.
                time.sleep(0.1)

    def _is_idle(self) -> bool:
        with self.app.database.read() as session:
            from storage.tables import Job, Stream

            busy = session.scalar(select(Job.id).where(Job.state.in_(JOB_UNFINISHED)).limit(1))
            registering = session.scalar(select(Stream.id).where(Stream.state == "registering").limit(1))
        return busy is None and registering is None and not self.background.is_busy()

    def add_stream(self, **settings: Any) -> None:
        """Register stream ``s`` on a toy base that knows the BASE words, with an anchor of such text."""
        write_model(self.root / "base", set(BASE.split()))
        write_documents(self.root / "anchor.jsonl", BASE, 40)
        values = {"name": "s", "model": str(self.root / "base"), "anchor": str(self.root / "anchor.jsonl"), **settings}
        registration.add_stream(self.app, StreamSettings.model_validate(values), origins={}, actor="test")
        self.settle()

    def ingest(self, text: str, *, documents: int = 40, name: str = "batch") -> int:
        """Push a batch of documents made of ``text``; its id."""
        path = write_documents(self.root / f"{name}.jsonl", text, documents)
        with self.app.database.read() as session:
            stream = records.stream_by_name(session, "s")
        report = ingest(self.app, stream.id, path=path, name=name, actor="test")
        assert report.outcome == "accepted", report.reason
        return int(report.batch_id or 0)

    def retrain(self, strategy: str | None = None) -> Decision:
        """Ask for a decision and see it through."""
        made = decision.request(self.app, "s", strategy=strategy, actor="test")
        self.settle()
        with self.app.database.read() as session:
            return session.get_one(Decision, made.id)

    def versions(self) -> dict[int, str]:
        """Number -> state."""
        with self.app.database.read() as session:
            return {one.number: one.state for one in session.scalars(select(Version).order_by(Version.number))}

    def batch_states(self) -> dict[int, str]:
        """Data batch id -> state."""
        with self.app.database.read() as session:
            found: Sequence[Batch] = session.scalars(select(Batch).where(Batch.kind == "data")).all()
            return {one.id: one.state for one in found}

    def promotions(self) -> list[tuple[int, str]]:
        """(version id, kind) in order."""
        with self.app.database.read() as session:
            found = session.scalars(select(Promotion).order_by(Promotion.id)).all()
            return [(one.version_id, one.kind) for one in found]

    def live_folder(self) -> Path:
        """What readers of the published model see."""
        return (self.app.home.published / "s" / "live").resolve()


@contextlib.contextmanager
def daemon_at(root: Path) -> Iterator[Daemon]:
    """A daemon on the SQLite database in its folder."""
    database = Database.open(f"sqlite:///{root / 'rekindle.db'}")
    daemon = Daemon(root, database)
    try:
        yield daemon
    finally:
        daemon.app.background.close()
        daemon.engine.close()
        database.close()


def write_documents(path: Path, text: str, documents: int) -> Path:
    """Documents that share the words of ``text`` but are no near-duplicates of each other."""
    words = text.split()
    lines = []
    for number in range(documents):
        shuffled = sorted(words * 2, key=lambda word: hash_of(word, number, path.stem))
        lines.append(json.dumps({"id": f"{path.stem}-{number}", "text": " ".join(shuffled)}))
    path.write_text("\n".join(lines) + "\n")
    return path


def hash_of(*parts: object) -> str:
    """A stable order."""
    import hashlib

    return hashlib.sha256(repr(parts).encode()).hexdigest()
