"""A small daemon: an app, a stream, toy jobs, and supervisors that are ticked by hand."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator.app import App, Resources
from orchestrator.home import Home
from orchestrator.jobs import queue
from orchestrator.jobs.executors.local import LocalExecutor
from orchestrator.jobs.lifecycle import Limits
from orchestrator.jobs.supervisor import Supervisor
from storage import leases
from storage.artifacts import ArtifactStore
from storage.database import Database, now
from storage.tables import Attempt, Job, Stream
from strategies.contract import QueuedSpec

QUICK = Limits(
    lease_s=0.3,
    stall_s=30.0,
    cancel_grace_s=0.3,
    terminate_grace_s=0.3,
    backoff_s=0.02,
    backoff_factor=1.0,
    free_requeues=2,
)
TOY = "tests.jobs.toy_job"


@dataclass
class Toys:
    """Queues toy jobs and drives supervisors."""

    app: App
    made: list[Supervisor] = field(default_factory=list)

    def supervisor(self, *, limits: Limits = QUICK, app: App | None = None) -> Supervisor:
        self.made.append(Supervisor(app or self.app, executor=LocalExecutor(TOY), limits=limits))
        return self.made[-1]

    def successor(self) -> App:
        """The app of the next daemon on the same home."""
        return replace(self.app, epoch=leases.acquire(self.app.database, "test", 60))

    def queue(self, name: str, *, key: str | None = None, **more: Any) -> Job:
        work = {"kind": "measure", "sources": [], "training": {}}
        spec = {"task": "causal-lm", "seed": 1, "threads": 1, "model": {"path": "/"}, "work": work}
        names = {one.name for one in fields(queue.Share)}
        limits = {"timeout_s": 60, **{one: value for one, value in more.items() if one in names}}
        given: dict[str, Any] = {"share": queue.Share(**limits)}
        given |= {one: value for one, value in {"spec": spec, **more}.items() if one not in names}
        given["spec"] = QueuedSpec.model_validate(given["spec"])
        with self.app.database.write() as session:
            return queue.queue(session, stream_id="s", name=name, key=key or name, **given)

    def job(self, job: Job) -> Job:
        with self.app.database.read() as session:
            return session.get_one(Job, job.id)

    def attempts(self, job: Job) -> list[Attempt]:
        with self.app.database.read() as session:
            return list(session.scalars(select(Attempt).where(Attempt.job_id == job.id).order_by(Attempt.number)))

    def model(self, job: Job) -> str:
        """Hash of the model that the job left."""
        artifacts = self.job(job).artifacts
        assert artifacts is not None
        return str(artifacts["answer/model"])

    def directory(self, job: Job, attempt: int = 1) -> Path:
        return self.app.home.job_directory(job.id, attempt)

    def drive(self, supervisor: Supervisor, until: Callable[[], object], timeout_s: float = 30.0) -> None:
        end = time.monotonic() + timeout_s
        while not until():
            assert time.monotonic() < end, "the jobs did not get there in time"
            if not supervisor.tick():
                time.sleep(0.01)

    def reach(self, supervisor: Supervisor, job: Job, state: str) -> Job:
        self.drive(supervisor, lambda: self.job(job).state == state)
        return self.job(job)

    def beating(self, supervisor: Supervisor, job: Job, attempt: int = 1) -> int:
        """Drive until the attempt runs and beats; its pid."""
        beats = self.directory(job, attempt) / "heartbeat.json"
        running = lambda: self.job(job).state == "running" and self.job(job).attempt == attempt and beats.exists()  # noqa: E731
        self.drive(supervisor, running)
        pid = self.attempts(job)[-1].pid
        assert pid is not None
        return pid


@pytest.fixture
def app(database: Database, tmp_path: Path) -> App:
    home = Home(root=tmp_path / "home")
    home.create()
    with database.write() as session:
        session.add(Stream(id="s", name="toys", task="causal-lm", state="active", split_key="k", created_at=now()))
    return App(
        home=home,
        database=database,
        store=ArtifactStore(home.artifacts),
        resources=Resources(cpus=2),
        epoch=leases.acquire(database, "test", 60),
    )


@pytest.fixture
def toys(app: App) -> Iterator[Toys]:
    made = Toys(app)
    yield made
    for supervisor in made.made:
        supervisor.close()
    executor = LocalExecutor(TOY)
    for directory in app.home.jobs.glob("*/*"):
        handle = executor.find(directory)
        if handle is not None and executor.kill(handle):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(handle.pid, 0)


def error_of(row: Job | Attempt) -> str:
    """Why it ended, which it says."""
    assert row.error is not None
    return row.error


def is_alive(pid: int) -> bool:
    """Whether a process that is not a zombie has this pid."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
