"""Jobs, their attempts and their logs as they are shown."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.errors import NotFound
from orchestrator.service.records import AttemptRecord, JobDetail, JobRecord, LogPiece
from orchestrator.service.views import common
from storage.states import ATTEMPT_ENDED, JOB_ENDED
from storage.tables import Attempt, Job, Version

LOG_PIECE_BYTES = 256 * 1024
"""Bytes of a log in one answer."""


def list_jobs(app: App, *, stream: str | None, state: str | None, limit: int, before: int | None) -> list[JobRecord]:
    """The newest jobs, of one stream or all."""
    query = select(Job)
    if state is not None:
        query = query.where(Job.state == state)
    with app.database.read() as session:
        if stream is not None:
            query = query.where(Job.stream_id == common.find_stream(session, stream).id)
        rows: list[Job] = common.page(session, query, by=Job.id, limit=limit, before=before)
        return job_records(session, rows)


def show_job(app: App, job_id: int) -> JobDetail:
    """One job with its attempts."""
    with app.database.read() as session:
        row = common.find_job(session, job_id)
        record = job_records(session, [row])[0].model_dump()
        attempts = tuple(_attempt(one) for one in _attempts(session, job_id))
        made = made_by(session, job_id)
    return JobDetail(**record, attempts=attempts, made=made, spec=row.spec, result=row.result, artifacts=row.artifacts)


def made_by(session: Session, job_id: int) -> int | None:
    """The number of the version whose answer a job made."""
    return session.scalar(select(Version.number).where(Version.job_id == job_id))


def job_records(session: Session, rows: list[Job]) -> list[JobRecord]:
    """The rows under the names that scripts rely on."""
    names = common.stream_names(session, (row.stream_id for row in rows))
    numbers = common.version_numbers(session, (row.version_id for row in rows))
    return [_record(row, stream=names[row.stream_id], version=numbers.get(row.version_id or 0)) for row in rows]


def job_log(app: App, job_id: int, *, attempt: int | None, offset: int) -> LogPiece:
    """A piece of the log of an attempt (the newest unless named), from a byte offset.

    Raises:
        NotFound: the job or the attempt does not exist, or its directory was collected.
    """
    with app.database.read() as session:
        job = common.find_job(session, job_id)
        attempts = _attempts(session, job_id)
    chosen = next((one for one in reversed(attempts) if attempt in (None, one.number)), None)
    if chosen is None:
        return _no_attempt(job, attempt)
    ended = chosen.state in ATTEMPT_ENDED
    data = _read(Path(chosen.directory) / "job.log", offset=offset, must_exist=ended)
    return LogPiece(
        job=job_id,
        attempt=chosen.number,
        state=job.state,
        text=data.decode("utf-8", errors="replace"),
        next_offset=offset + len(data),
        complete=ended and len(data) < LOG_PIECE_BYTES,
    )


def _no_attempt(job: Job, attempt: int | None) -> LogPiece:
    if attempt is not None:
        raise NotFound(f"job {job.id} has no attempt {attempt}; `rekindle job show {job.id}` lists them")
    return LogPiece(job=job.id, attempt=0, state=job.state, text="", next_offset=0, complete=job.state in JOB_ENDED)


def _read(path: Path, *, offset: int, must_exist: bool) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read(LOG_PIECE_BYTES)
    except FileNotFoundError as error:
        if must_exist:
            raise NotFound(f"the log {path} is gone; logs go with their job directory") from error
        return b""
    return _whole_characters(data)


def _whole_characters(data: bytes) -> bytes:
    """Without a multi-byte character cut at the end, so that the next piece begins with it."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return data
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data if back >= needed else data[:-back]
    return data


def _attempts(session: Session, job_id: int) -> list[Attempt]:
    return list(session.scalars(select(Attempt).where(Attempt.job_id == job_id).order_by(Attempt.number)))


def _attempt(row: Attempt) -> AttemptRecord:
    return AttemptRecord(
        number=row.number,
        state=row.state,
        host=row.host,
        pid=row.pid,
        gpus=tuple(row.gpus),
        exit_code=row.exit_code,
        error=row.error,
        directory=row.directory,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _record(row: Job, *, stream: str, version: int | None) -> JobRecord:
    return JobRecord(
        id=row.id,
        stream=stream,
        kind=row.kind,
        name=row.name,
        state=row.state,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        progress=row.progress or {},
        error=row.error,
        decision=row.decision_id,
        version=version,
        needs=tuple(row.needs),
        cpus=row.cpus,
        gpus=row.gpus,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
