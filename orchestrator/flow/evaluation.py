"""Step five: every version that matters is measured on every eval set that matters, once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Literal

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.flow import alerts, records
from orchestrator.flow.each import each
from orchestrator.jobs import queue
from orchestrator.settings import StreamSettings
from storage import chain, lineage, manifests
from storage.artifacts import Stored
from storage.moves import move
from storage.states import JOB_GAVE_UP, JOB_UNFINISHED, JUDGED, DecisionResult
from storage.tables import Decision, EvalSet, Evaluation, Job, Plan, Stream, Version
from strategies.contract import EvalFile, EvaluateWork, JobResult, ModelFiles, QueuedSpec
from strategies.contract.graph import ADAPTER, BANK, MODEL

Progress = Literal["complete", "waiting", "failed"]
EVALUATION_FORMAT = 1
"""Raised when the meaning of a score changes: older scores are then measured again instead of compared."""


def step(app: App) -> bool:
    """Record finished evaluations, and ask for those that the live version and candidates still lack."""
    changed = _record_finished(app)
    with app.database.read() as session:
        streams = [stream.id for stream in records.working_streams(session)]
    return each(partial(_advance, app), streams) or changed


def settings_hash(settings: StreamSettings) -> str:
    """What a score depends on beside model and set."""
    return _settings_hash(settings.task, settings.training.max_length)


def _settings_hash(task: str, max_length: int) -> str:
    return records.fingerprint({"format": EVALUATION_FORMAT, "task": task, "max_length": max_length})


def is_measured(session: Session, stream: Stream, version: Version, sets: Iterable[EvalSet]) -> bool:
    """Whether the version has a score on each of the stream's sets."""
    wanted = {one.content_hash for one in sets}
    have = records.evaluations_of(session, version.id, settings_hash(records.settings_of(session, stream.id)))
    return wanted <= have.keys()


def ensure(
    session: Session, *, stream: Stream, version: Version, sets: Iterable[EvalSet], priority: int = 0
) -> Progress:
    """Queue what the version lacks of ``sets``; say whether it is there, under way, or cannot be had."""
    settings = records.settings_of(session, stream.id)
    have = records.evaluations_of(session, version.id, settings_hash(settings))
    missing = list({one.content_hash: one for one in sets if one.content_hash not in have}.values())
    if not missing:
        return "complete"
    if _is_being_measured(session, version):
        return "waiting"
    job = queue.queue(
        session,
        share=queue.share_of(settings, priority=priority),
        stream_id=stream.id,
        name="evaluate",
        key=_key(version, missing, settings),
        spec=_spec(session, version=version, sets=missing, settings=settings),
        version_id=version.id,
    )
    return "failed" if job.state in JOB_GAVE_UP else "waiting"


def _is_being_measured(session: Session, version: Version) -> bool:
    """Whether an evaluation of the version is unfinished: what it covers must not be measured twice."""
    under_way = select(Job.id).where(
        Job.version_id == version.id,
        Job.kind == "evaluate",
        Job.state.in_(JOB_UNFINISHED),
    )
    return session.scalar(under_way.limit(1)) is not None


def _spec(session: Session, *, version: Version, sets: Sequence[EvalSet], settings: StreamSettings) -> QueuedSpec:
    work = EvaluateWork(
        sets=tuple(eval_file(one) for one in sets),
        training=settings.training,
        known_labels={labels_name(known): known for known in _compared_labels(session, version)},
    )
    return queue.spec(settings, model=model_of(session, version, settings), work=work)


def model_of(session: Session, version: Version, settings: StreamSettings) -> ModelFiles:
    """The symbolic model of a job: its folder, the adapter or bank on top if it has one, the classes it knows."""
    answer = {role: f"manifest:{one}" for role, one in records.artifacts_of(session, version.id).items()}
    return ModelFiles(
        path=answer[MODEL],
        adapter=answer.get(ADAPTER),
        bank=answer.get(BANK),
        trust_remote_code=settings.trust_remote_code,
        labels=tuple(records.known_labels(session, version)),
    )


def eval_file(one: EvalSet) -> EvalFile:
    """The symbolic file of an eval set."""
    return EvalFile(
        id=one.id,
        name=one.name,
        path=f"object:{one.content_hash}",
        sha256=one.content_hash,
        labels=tuple(one.labels),
    )


def labels_name(labels: Sequence[str]) -> str:
    """The name of a set of classes in per-example results."""
    return records.fingerprint(list(labels))[:12]


def best_ever(session: Session, stream: Stream, settings: StreamSettings) -> Version | None:
    """Among versions that were live and neither rolled back from nor forced, the one that scores best on the anchor.

    Without an anchor, the base. It stands for "the best that was ever live" on sets that are newer than it.
    """
    good = good_versions(session, stream.id)
    anchor = next((one for one in records.active_sets(session, stream.id) if one.kind == "anchor"), None)
    if not good or anchor is None:
        return good[0] if good else None
    scored = [
        (evaluation, version)
        for version in good
        if (evaluation := records.evaluations_of(session, version.id, settings_hash(settings)).get(anchor.content_hash))
    ]
    if not scored:
        return good[0]
    lower_is_better = scored[0][0].metric == "loss"
    return min(scored, key=lambda pair: pair[0].value if lower_is_better else -pair[0].value)[1]


def good_versions(session: Session, stream_id: str) -> list[Version]:
    """Versions that were live on their own merit and never rolled back from, oldest first."""
    merited = [one.version_id for one in lineage.live_stack(session, stream_id) if one.kind in ("initial", "promotion")]
    return list(session.scalars(select(Version).where(Version.id.in_(merited)).order_by(Version.number)))


def own_batches(session: Session, candidate: Version) -> list[int]:
    """The data batches that a candidate stands for: its decision's, or those behind what it was merged from."""
    if candidate.decision_id is not None:
        return list(session.get_one(Decision, candidate.decision_id).batches)
    return data_behind(session, candidate)


def data_behind(session: Session, version: Version) -> list[int]:
    """The data batches that a version or any version it came from was trained on."""
    behind = {one.batch_id for one in lineage.batches_behind(session, version.id) if one.role == "trained"}
    return sorted(one.id for one in records.batches_by_id(session, behind).values() if one.kind == "data")


def judged_sets(session: Session, candidate: Version) -> list[EvalSet]:
    """The eval sets that a candidate is judged on: none of batches that are held or came after its decision."""
    return sets_about(session, candidate.stream_id, own_batches(session, candidate))


def sets_about(session: Session, stream_id: str, own: Sequence[int]) -> list[EvalSet]:
    """The active eval sets, of batches only those that are trained and the ``own`` ones of a decision."""
    sets = records.active_sets(session, stream_id)
    batches = records.batches_by_id(session, [one.batch_id for one in sets if one.kind == "batch" and one.batch_id])
    return [
        one
        for one in sets
        if one.kind != "batch" or batches[one.batch_id or 0].state == "trained" or one.batch_id in own
    ]


def failed_job(session: Session, stream: Stream, version: Version, sets: Sequence[EvalSet]) -> Job | None:
    """The job that keeps the version from being measured on the sets: an evaluation, or the sampling of a stand-in."""
    if ensure(session, stream=stream, version=version, sets=sets) == "failed":
        return given_up(session, version)
    sampling = records.sampling_of(session, stream.id)
    return sampling if sampling is not None and sampling.state in JOB_GAVE_UP else None


def given_up(session: Session, version: Version) -> Job | None:
    """The newest evaluation of the version that failed for good."""
    ended = select(Job).where(Job.version_id == version.id, Job.kind == "evaluate", Job.state.in_(JOB_GAVE_UP))
    return session.scalar(ended.order_by(Job.id.desc()).limit(1))


def ensure_judgeable(session: Session, *, stream: Stream, candidate: Version, live: Version) -> Progress:
    """Have the candidate, the live version and the best that was ever live measured on what the gate looks at."""
    sets = judged_sets(session, candidate)
    best = best_ever(session, stream, records.settings_of(session, stream.id))
    own = ensure(session, stream=stream, version=candidate, sets=sets)
    others = [ensure(session, stream=stream, version=live, sets=sets, priority=1)]
    if best is not None and ensure(session, stream=stream, version=best, sets=sets) == "waiting":
        others.append("waiting")
    if "failed" in (own, *others):
        return "failed"
    return "complete" if {own, *others} == {"complete"} else "waiting"


def _advance(app: App, stream_id: str) -> bool:
    with app.database.read() as session:
        if not _has_work(session, stream_id):
            return False
    with app.database.write() as session:
        stream = session.get_one(Stream, stream_id)
        live = lineage.live_version(session, stream_id)
        if live is None:
            return False
        ensure(session, stream=stream, version=live, sets=records.active_sets(session, stream_id), priority=1)
        candidates = session.scalars(
            select(Version).where(Version.stream_id == stream_id, Version.state == "candidate").order_by(Version.id)
        ).all()
        return any([_advance_candidate(app, session, stream, one, live) for one in candidates])


def _has_work(session: Session, stream_id: str) -> bool:
    stream = session.get_one(Stream, stream_id)
    live = lineage.live_version(session, stream_id)
    if live is None:
        return False
    candidate = select(Version.id).where(Version.stream_id == stream_id, Version.state == "candidate").limit(1)
    sets = records.active_sets(session, stream_id)
    return session.scalar(candidate) is not None or not is_measured(session, stream, live, sets)


def _advance_candidate(app: App, session: Session, stream: Stream, candidate: Version, live: Version) -> bool:
    progress = ensure_judgeable(session, stream=stream, candidate=candidate, live=live)
    if progress == "failed":
        return reject(app, session, candidate)
    if progress == "waiting":
        return False
    reason = f"measured on {len(judged_sets(session, candidate))} eval sets"
    move(session, candidate, "evaluated", actor="daemon", reason=reason, epoch=app.epoch)
    return True


def reject(app: App, session: Session, candidate: Version) -> bool:
    """A candidate that cannot be measured cannot go live; its decision ends."""
    reason = "its evaluation, or the live version's, failed for good"
    move(session, candidate, "rejected", actor="daemon", reason=reason, epoch=app.epoch)
    if candidate.decision_id is not None:
        close_decision(app, session, candidate.decision_id, result="failed", outcome=reason)
    return True


def close_decision(app: App, session: Session, decision_id: int, *, result: DecisionResult, outcome: str) -> None:
    """End a decision and its plan, with what became of it and the sentence that says so."""
    decision = session.get_one(Decision, decision_id)
    plan = session.scalar(select(Plan).where(Plan.decision_id == decision_id))
    at = app.clock.now()
    if plan is not None and plan.state == "open":
        state = "succeeded" if result in JUDGED else result
        move(session, plan, state, actor="daemon", reason=outcome, epoch=app.epoch, closed_at=at)
    if decision.state != "closed":
        ended: dict[str, Any] = {"closed_at": at, "result": result, "outcome": outcome}
        move(session, decision, "closed", actor="daemon", reason=outcome, epoch=app.epoch, **ended)


def _record_finished(app: App) -> bool:
    with app.database.write() as session:
        jobs = session.scalars(
            select(Job).where(
                Job.kind == "evaluate",
                Job.state == "succeeded",
                Job.version_id.is_not(None),
                ~exists().where(Evaluation.job_id == Job.id),
            )
        ).all()
        return any([_record(app, session, job) for job in jobs])


def _record(app: App, session: Session, job: Job) -> bool:
    work, result = records.work_of(job, EvaluateWork), records.result_of(job)
    measured_with = _settings_hash(records.spec_of(job).task, work.training.max_length)
    version_id = job.version_id or 0
    have = records.evaluations_of(session, version_id, measured_with)
    scores = {score.sha256: score for score in result.scores}
    fresh = [score for digest, score in scores.items() if digest not in have]
    for score in fresh:
        manifests.register_object(session, _stored(app, score.results))
        chain.append(
            session,
            Evaluation(
                version_id=version_id,
                eval_set_id=score.eval_set,
                eval_set_hash=score.sha256,
                settings_hash=measured_with,
                metric=score.metric,
                value=score.value,
                value_select=score.value_select,
                value_judge=score.value_judge,
                examples=score.examples,
                details={"tokens": score.tokens, "bytes": score.bytes, **score.details},
                results_hash=score.results,
                job_id=job.id,
                created_at=app.clock.now(),
            ),
        )
    return _retire(session, job.stream_id, unscored(result)) or bool(fresh)


def unscored(result: JobResult) -> Sequence[str]:
    """Names of the eval sets in which a measurement found nothing to score."""
    found: Sequence[str] = result.facts.get("unscored", ())
    return found


def _retire(session: Session, stream_id: str, names: Sequence[str]) -> bool:
    """A set in which nothing could be scored tells nothing about any version: it is put aside, and says so."""
    sets = session.scalars(
        select(EvalSet).where(EvalSet.stream_id == stream_id, EvalSet.name.in_(names), EvalSet.active)
    ).all()
    for one in sets:
        one.active = False
        reason = f"eval set {one.name} has no document that could be scored; it is put aside"
        alerts.write(session, stream_id=stream_id, subject="eval_set", subject_id=str(one.id), reason=reason)
    return bool(sets)


def _stored(app: App, digest: str) -> Stored:
    return Stored(hash=digest, bytes=app.store.path(digest).stat().st_size)


def _key(version: Version, missing: Sequence[EvalSet], settings: StreamSettings) -> str:
    sets = records.fingerprint(sorted(one.content_hash for one in missing))
    return f"evaluate:{version.id}:{settings_hash(settings)[:16]}:{sets[:24]}"


def _compared_labels(session: Session, version: Version) -> list[tuple[str, ...]]:
    """The distinct class sets that this version may be compared within: those of versions that were live."""
    others = session.scalars(
        select(Version).where(Version.stream_id == version.stream_id, Version.state.in_(("live", "retired")))
    )
    distinct = {tuple(records.known_labels(session, one)) for one in others}
    return [labels for labels in sorted(distinct) if labels]
