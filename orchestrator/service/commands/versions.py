"""Promoting, rolling back, evaluating and exporting versions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.errors import BadInput, Conflict
from orchestrator.flow import evaluation, promotion, records, rollback
from orchestrator.ingest import run as ingest
from orchestrator.ingest.records import AD_HOC_PREFIX
from orchestrator.service.names import VersionName
from orchestrator.service.records import EvaluateRecord, LiveRecord
from orchestrator.service.views import common
from orchestrator.service.views.streams import held_batches
from orchestrator.service.views.versions import evaluations_of
from storage.states import JOB_UNFINISHED
from storage.tables import EvalSet, Job, Promotion, Stream, Version
from strategies.contract import EvaluateWork


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
    """Have a version measured on what it lacks of its stream's eval sets, or on a file of the user's alone.

    Raises:
        NotFound: no such stream or version.
        BadInput: the file holds no document that can be measured.
        Conflict: the measurement failed before.
    """
    with app.database.read() as session:
        stream = common.find_stream(session, name.stream)
        version = common.find_version(session, stream, name.number)
    only = None if data is None else _bring(app, stream, data, actor=actor)
    with app.database.write() as session:
        sets = list(records.active_sets(session, stream.id)) if only is None else [session.get_one(EvalSet, only)]
        unscored = _unscored(session, version)
        scorable = [one for one in sets if one.id not in unscored]
        progress = evaluation.ensure(session, stream=stream, version=version, sets=scorable)
        jobs = _jobs_of(session, version)
        wanted = _names(session, stream, sets)
        scores = [one for one in evaluations_of(session, [version]).get(version.id, ()) if one.eval_set in wanted]
    if progress == "failed":
        raise Conflict(f"measuring {name} failed before; `rekindle job list {name.stream}` names the job to retry")
    app.wake.set()
    return EvaluateRecord(
        stream=stream.name,
        version=version.number,
        sets=tuple(one.name for one in sets),
        jobs=jobs,
        unscored=tuple(one.name for one in sets if one.id in unscored),
        complete=progress == "complete",
        evaluations=tuple(scores),
    )


def _bring(app: App, stream: Stream, data: Path, *, actor: str) -> int:
    """The eval set of a user's file. It is measured on request only: no gate looks at it, no candidate waits for it."""
    name = f"{AD_HOC_PREFIX}{data.name}"
    if not data.is_file():
        raise BadInput(f"there is no file {data} on the daemon's machine")
    report = ingest.spawn(app, stream.id, path=data, name=name, kind="fixed", actor=actor, ad_hoc=True)
    if report.outcome == "refused":
        raise BadInput(f"{data} cannot be measured on: {report.reason}")
    with app.database.read() as session:
        query = select(EvalSet).where(EvalSet.stream_id == stream.id, EvalSet.kind == "fixed").order_by(EvalSet.id)
        found = next((one for one in session.scalars(query) if report.batch_id in one.members), None)
    if found is None:
        raise BadInput(f"{data} holds no document that can be measured; {report.quarantined} were quarantined")
    return found.id


def _unscored(session: Session, version: Version) -> set[int]:
    """The eval sets in which a measurement of this version found nothing to score."""
    query = select(Job).where(Job.version_id == version.id, Job.kind == "evaluate", Job.state == "succeeded")
    found: set[int] = set()
    for job in session.scalars(query):
        names = evaluation.unscored(records.result_of(job))
        found |= {one.id for one in records.work_of(job, EvaluateWork).sets if one.name in names}
    return found


def _names(session: Session, stream: Stream, sets: Sequence[EvalSet]) -> set[str]:
    """All names that these sets' scores may stand under: a set of the same content is measured once."""
    hashes = [one.content_hash for one in sets]
    return set(
        session.scalars(
            select(EvalSet.name).where(EvalSet.stream_id == stream.id, EvalSet.content_hash.in_(hashes)).distinct()
        )
    )


def _jobs_of(session: Session, version: Version) -> tuple[int, ...]:
    """The measurements of a version that are under way."""
    query = select(Job.id).where(Job.version_id == version.id, Job.kind == "evaluate", Job.state.in_(JOB_UNFINISHED))
    return tuple(session.scalars(query.order_by(Job.id)))


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
