"""Records written straight into SQL, for what needs no flow."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from orchestrator.settings import StreamSettings
from storage.database import now
from storage.tables import Attempt, Batch, Job, Stream, StreamRevision

ID = "a" * 32


def add_stream(session: Session, *, state: str = "active", name: str = "news", **settings: Any) -> Stream:
    """A stream without versions."""
    stream = Stream(id=ID, name=name, task="causal-lm", state=state, split_key="k", created_at=now())
    session.add(stream)
    session.flush()
    values = StreamSettings.model_validate({"name": name, "model": "m", **settings}).model_dump(mode="json")
    session.add(
        StreamRevision(
            stream_id=ID, number=1, settings=values, origins={}, settings_hash="h", actor="test", created_at=now()
        )
    )
    session.flush()
    return stream


def add_job(session: Session, *, state: str = "queued", number: int = 1, **values: Any) -> Job:
    """A job of the stream."""
    made = Job(
        stream_id=ID,
        kind="train",
        name="train",
        key=f"job-{number}",
        state=state,
        max_attempts=1,
        timeout_s=60,
        spec={},
        needs=[],
        progress={},
        created_at=now(),
        **values,
    )
    session.add(made)
    session.flush()
    return made


def add_attempt(session: Session, job: Job, directory: str, *, state: str = "running", number: int = 1) -> None:
    """An attempt of a job."""
    session.add(
        Attempt(
            job_id=job.id,
            number=number,
            state=state,
            directory=directory,
            host="here",
            epoch=1,
            cpus=1,
            gpus=[],
            started_at=now(),
        )
    )


def add_batch(session: Session, *, number: int = 1, state: str = "pending") -> Batch:
    """A data batch of the stream."""
    made = Batch(
        stream_id=ID,
        kind="data",
        name=f"batch-{number}",
        state=state,
        arrival_hash=f"{number:064}",
        snapshot_hash="s" * 64,
        documents=10,
        train_documents=9,
        heldout_documents=1,
        duplicates=0,
        near_duplicates=0,
        conflicts=0,
        leaked=0,
        quarantined=0,
        refusals=2,
        labels=[],
        created_at=now(),
    )
    session.add(made)
    session.flush()
    return made
