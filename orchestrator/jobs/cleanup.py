"""What finished attempts leave on disk is given back; log, spec, result and small evidence stay."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.importing import ResultRefused, inside, read_result
from storage.states import JOB_ENDED
from storage.tables import Attempt, Job

KEEP_ENDED = timedelta(days=7)
"""Checkpoints of a job that failed or was cancelled: so long a retry can go on from them."""
SWEEP_ATTEMPTS = 50


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A finished attempt whose directory may hold something big."""

    attempt: int
    directory: Path
    stored: bool
    """Its job has succeeded: all that matters is in the store."""


def leftovers(session: Session, *, host: str, after: int, now: datetime) -> list[Leftover]:
    """The next few finished attempts behind attempt ``after`` that may be given back, oldest first."""
    query = (
        select(Attempt, Job)
        .join(Job, Job.id == Attempt.job_id)
        .where(Attempt.id > after, Attempt.host == host, Job.state.in_(JOB_ENDED))
        .order_by(Attempt.id)
        .limit(SWEEP_ATTEMPTS)
    )
    return [
        Leftover(attempt=attempt.id, directory=Path(attempt.directory), stored=job.state == "succeeded")
        for attempt, job in session.execute(query)
        if job.state == "succeeded" or (job.finished_at is not None and job.finished_at < now - KEEP_ENDED)
    ]


def tidy(found: Iterable[Leftover]) -> None:
    """Give the disk space of these attempts back; what cannot be removed is left for the next sweep."""
    for one in found:
        if one.stored:
            _remove_stored(one.directory)
        _remove(one.directory / "checkpoints")
        for folder in one.directory.glob("import-*"):
            _remove(folder)


def _remove_stored(directory: Path) -> None:
    """Artifacts and per-example results are in the store; bitmaps and samples stay, they are read from here."""
    with contextlib.suppress(OSError, ResultRefused):
        result = read_result(directory)
        for path in {*result.artifacts.values(), *(score.results for score in result.scores)}:
            with contextlib.suppress(ResultRefused):
                _remove(inside(directory, path))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
