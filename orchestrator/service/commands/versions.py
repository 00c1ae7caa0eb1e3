"""Promoting, rolling back, evaluating and exporting versions."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.flow import evaluation, promotion, rollback
from orchestrator.service.names import VersionName
from orchestrator.service.records import EvaluateRecord, LiveRecord
from orchestrator.service.views import common
from orchestrator.service.views.streams import held_batches
from orchestrator.service.views.versions import evaluations_of
from storage.tables import Promotion, Stream


def promote(app: App, stream: str, number: int, *, force: bool, reason: str, actor: str) -> LiveRecord:
    """Make a version live at a user's word; without ``force`` only if the gate passes it.

    Raises:
        NotFound: no such stream or version.
        Conflict: it is live already, still being measured, or was live before.
        GateRefused: the gate refused it or could not tell.
    """
    done = promotion.promote(app, stream, number, force=force, reason=reason, actor=actor)
    return _live(app, stream, done)


def roll_back(app: App, stream: str, *, to: int | None, reason: str, actor: str) -> LiveRecord:
    """Return to the version that was live before this one, or to any that was live.

    Raises:
        NotFound: no such stream.
        Conflict: there is nothing to go back to, or ``to`` was never live.
    """
    with app.database.read() as session:
        before = held_batches(session, common.find_stream(session, stream).id)
    done = rollback.roll_back(app, stream, to=to, reason=reason, actor=actor)
    with app.database.read() as session:
        after = held_batches(session, done.stream_id)
    return _live(app, stream, done, held=tuple(one for one in after if one not in before))


def evaluate(app: App, name: VersionName, *, data: Path | None, actor: str) -> EvaluateRecord:
    """Have a version measured on what it lacks, or on a file of the user's.

    Raises:
        NotFound: no such stream or version.
        BadInput: the file cannot be read.
    """
    with app.database.read() as session:
        stream = common.find_stream(session, name.stream)
        version = common.find_version(session, stream, name.number)
    jobs = evaluation.request(app, version, data)
    app.wake.set()
    with app.database.read() as session:
        return _evaluated(session, stream, version.number, [job.id for job in jobs])


def _evaluated(session: Session, stream: Stream, number: int, jobs: list[int]) -> EvaluateRecord:
    version = common.find_version(session, stream, number)
    return EvaluateRecord(
        stream=stream.name,
        version=number,
        jobs=tuple(jobs),
        complete=not jobs,
        evaluations=tuple(evaluations_of(session, [version]).get(version.id, ())),
    )


def _live(app: App, stream: str, done: Promotion, *, held: tuple[int, ...] = ()) -> LiveRecord:
    with app.database.read() as session:
        numbers = common.version_numbers(session, [done.version_id, done.previous_version_id])
    return LiveRecord(
        stream=stream,
        live=numbers[done.version_id],
        previous=numbers.get(done.previous_version_id or 0),
        kind=done.kind,
        reason=done.reason,
        held=held,
    )
