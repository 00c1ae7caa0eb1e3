"""Step six: the gate judges a measured candidate, and what passes becomes live."""

from __future__ import annotations

from functools import partial

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.errors import BadInput, Conflict, GateRefused, NotFound
from orchestrator.flow import alerts, evaluation, evidence, publication, records, repair, revisions
from orchestrator.flow.each import each
from orchestrator.policies.gate import judge
from orchestrator.policies.verdict import GateVerdict
from storage import chain, events, lineage, manifests
from storage.moves import move
from storage.tables import Batch, Decision, Promotion, Stream, Verdict, Version

HELD_AFTER_REFUSALS = 2
"""A batch whose training was refused this often is held, so that later batches go on."""


def step(app: App) -> bool:
    """Judge what is measured, and carry out what the gate said."""
    with app.database.read() as session:
        streams = {stream.id for stream in records.working_streams(session)}
        waiting = session.scalars(select(Version).where(Version.state == "evaluated").order_by(Version.id)).all()
        todo = [one.id for one in waiting if one.stream_id in streams and _is_undecided(session, one)]
    return each(partial(_advance, app), todo)


def promote(app: App, stream_name: str, number: int, *, force: bool, reason: str, actor: str) -> Promotion:
    """Make a version live at a user's word; without ``force`` only if the gate passes it.

    Raises:
        NotFound: no such stream or version.
        BadInput: no reason given.
        Conflict: the version is live already, is still being measured, or was live before (that is a rollback).
        GateRefused: the gate refused the version or could not tell.
    """
    if not reason.strip():
        raise BadInput("a promotion by hand needs a reason; give one with --reason")
    with app.database.write() as session:
        stream, version, live = _named(session, stream_name, number)
        _check_can_go_live(session, stream, version)
        judged = version.state == "evaluated" and _is_judgeable(session, stream, version, live)
    verdict = _judge(app, version.id, live.id) if judged else None
    passed = verdict is not None and verdict.outcome == "pass"
    if not passed and not force:
        said = verdict.reason if verdict else "the gate refused it before, or has not measured it yet"
        raise GateRefused(f"{stream_name}/{number} was not promoted: {said}; --force --reason promotes it all the same")
    publication.prepare_if_published(app, stream.id, version.id)
    with app.database.write() as session:
        stream, version, now_live = _named(session, stream_name, number)
        if now_live.id != live.id:
            raise Conflict(f"{stream_name}/{now_live.number} became live meanwhile; ask again")
        done = make_live(
            app,
            session,
            stream=stream,
            version=version,
            kind="promotion" if passed else "forced",
            reason=reason,
            actor=actor,
            verdict=verdict,
        )
        _end_decision(app, session, stream, version, f"by {actor}: {reason}")
    publication.follow(app, stream.id)
    app.wake.set()
    return done


def make_live(
    app: App,
    session: Session,
    *,
    stream: Stream,
    version: Version,
    kind: str,
    reason: str,
    actor: str,
    verdict: Verdict | None = None,
) -> Promotion:
    """The old version retires, the new one is live, and the promotion row says so: one transaction."""
    live = lineage.live_version(session, stream.id)
    if live is not None:
        move(session, live, "retired", actor=actor, reason=reason, epoch=app.epoch)
    move(session, version, "live", actor=actor, reason=reason, epoch=app.epoch)
    root = records.root_of(session, version)
    if live is not None and root.id != records.root_of(session, live).id:
        revisions.follow_base(app, session, stream, root, actor)
    return chain.append(
        session,
        Promotion(
            stream_id=stream.id,
            version_id=version.id,
            previous_version_id=None if live is None else live.id,
            kind=kind,
            reason=reason,
            actor=actor,
            verdict_id=None if verdict is None else verdict.id,
            created_at=app.clock.now(),
        ),
    )


def _named(session: Session, stream_name: str, number: int) -> tuple[Stream, Version, Version]:
    stream = records.stream_by_name(session, stream_name)
    version = lineage.version_by_number(session, stream.id, number)
    if version is None:
        raise NotFound(f"there is no version {stream_name}/{number}; `rekindle version list {stream_name}` shows them")
    return stream, version, records.live_of(session, stream)


def _check_can_go_live(session: Session, stream: Stream, version: Version) -> None:
    label = f"{stream.name}/{version.number}"
    if version.state == "live":
        raise Conflict(f"{label} is live already")
    if version.state == "candidate":
        raise Conflict(f"{label} is still being measured; `rekindle job list` shows how far it is")
    if version.state == "retired":
        raise Conflict(
            f"{label} was live before; `rekindle rollback {stream.name} --to {version.number}` returns to it"
        )
    answer = [one for role, one in records.artifacts_of(session, version.id).items() if role.startswith("answer/")]
    if not all(manifests.is_available(session, one) for one in answer):
        raise Conflict(f"the files of {label} were collected; train it again")


def _is_judgeable(session: Session, stream: Stream, version: Version, live: Version) -> bool:
    return evaluation.ensure_judgeable(session, stream=stream, candidate=version, live=live) == "complete"


def _is_undecided(session: Session, version: Version) -> bool:
    """Whether the flow still has to act: its decision is open, or it has none and the gate could tell."""
    if version.decision_id is not None:
        return session.get_one(Decision, version.decision_id).closed_at is None
    verdicts = session.scalars(select(Verdict).where(Verdict.version_id == version.id)).all()
    live = lineage.live_version(session, version.stream_id)
    if live is None:
        return False
    left = [one for one in verdicts if one.outcome == "inconclusive" and not _goes_live(one)]
    return not any(one.compared_with_id == live.id for one in left)


def _advance(app: App, version_id: int) -> bool:
    with app.database.write() as session:
        version = session.get_one(Version, version_id)
        stream = session.get_one(Stream, version.stream_id)
        live = records.live_of(session, stream)
        progress = evaluation.ensure_judgeable(session, stream=stream, candidate=version, live=live)
        if progress == "failed":
            return evaluation.reject(app, session, version)
        if progress == "waiting":
            return False
        verdict = _known_verdict(session, version.id, live.id)
        if verdict is not None and not _goes_live(verdict):
            return _decline(app, session, version, live, verdict)
    if verdict is None:
        return app.background.start(f"judge:{version_id}", partial(_judge, app, version_id, live.id))
    if not publication.is_ready(app, stream.name, version.number):
        return app.background.start(f"publish:{version_id}", partial(publication.prepare, app, stream.id, version_id))
    return _go_live(app, version_id, verdict)


def _goes_live(verdict: Verdict) -> bool:
    return verdict.outcome == "pass" or verdict.mode == "record"


def _go_live(app: App, version_id: int, verdict: Verdict) -> bool:
    with app.database.write() as session:
        version = session.get_one(Version, version_id)
        stream = session.get_one(Stream, version.stream_id)
        live = records.live_of(session, stream)
        if version.state != "evaluated" or live.id != verdict.compared_with_id:
            return False  # the gate runs again, against what is live now
        kind = "promotion" if verdict.outcome == "pass" else "recorded"
        make_live(
            app,
            session,
            stream=stream,
            version=version,
            kind=kind,
            reason=verdict.reason,
            actor="daemon",
            verdict=verdict,
        )
        _end_decision(app, session, stream, version, f"({kind}): {verdict.reason}")
    publication.follow(app, stream.id)
    return True


def _end_decision(app: App, session: Session, stream: Stream, version: Version, how: str) -> None:
    """The batches behind a version that went live are trained, whatever the gate had said of them before."""
    reason = f"trained into {stream.name}/{version.number}"
    for batch in records.batches_by_id(session, evaluation.own_batches(session, version)).values():
        if batch.state in ("pending", "held"):
            move(session, batch, "trained", actor="daemon", reason=reason, epoch=app.epoch, state_reason=reason)
    decision = None if version.decision_id is None else session.get_one(Decision, version.decision_id)
    if decision is not None and decision.closed_at is None:
        repair.drop(session, decision, reason)
        outcome = f"{stream.name}/{version.number} is live {how}"
        evaluation.close_decision(app, session, decision.id, result="promoted", outcome=outcome)


def _known_verdict(session: Session, version_id: int, live_id: int) -> Verdict | None:
    verdicts = select(Verdict).where(Verdict.version_id == version_id, Verdict.compared_with_id == live_id)
    return session.scalar(verdicts.order_by(Verdict.id.desc()).limit(1))


def _judge(app: App, version_id: int, live_id: int) -> Verdict:
    """The gate's word on the version against that live one: computed without holding up writers.

    Written unless the last word was the same: settings of the gate or eval sets may have come since.
    """
    with app.database.read() as session:
        version, live = session.get_one(Version, version_id), session.get_one(Version, live_id)
        stream = session.get_one(Stream, version.stream_id)
        settings = records.settings_of(session, stream.id).gate
        seen = evidence.gather(app, session, stream=stream, candidate=version, live=live)
    said = judge(seen, settings)
    with app.database.write() as session:
        known = _known_verdict(session, version_id, live_id)
        if known is not None and (known.details, known.mode) == (said.model_dump(mode="json"), settings.mode):
            return known
        return _write_verdict(app, session, stream, version, live, said, settings.mode)


def _write_verdict(
    app: App, session: Session, stream: Stream, version: Version, live: Version, said: GateVerdict, mode: str
) -> Verdict:
    verdict = Verdict(
        version_id=version.id,
        compared_with_id=live.id,
        outcome=said.outcome,
        mode=mode,
        reason=said.reason,
        details=said.model_dump(mode="json"),
        created_at=app.clock.now(),
    )
    session.add(verdict)
    session.flush()
    events.record(
        session,
        stream_id=stream.id,
        subject="version",
        subject_id=str(version.id),
        action="judged",
        actor="daemon",
        reason=said.reason,
        details={"outcome": said.outcome, "mode": mode, "compared_with": live.number},
    )
    return verdict


def _decline(app: App, session: Session, version: Version, live: Version, verdict: Verdict) -> bool:
    """Inconclusive: the candidate stays, the batches wait for the next. Failed: it is repaired, or rejected."""
    if verdict.outcome == "inconclusive":
        if version.decision_id is not None:
            outcome = f"inconclusive: {verdict.reason}"
            evaluation.close_decision(app, session, version.decision_id, result="inconclusive", outcome=outcome)
        return True
    repaired = repair.advance(app, session, candidate=version, live=live, verdict=verdict)
    if repaired is not None and repaired.waiting:
        return False
    reason = verdict.reason if repaired is None else f"{verdict.reason}; {repaired.reason}"
    move(session, version, "rejected", actor="daemon", reason=reason, epoch=app.epoch)
    if repaired is None or repaired.made is None:
        _refuse(app, session, version, reason)
    return True


def _refuse(app: App, session: Session, version: Version, reason: str) -> None:
    """The decision ends, and its batches count one refusal more."""
    if version.decision_id is None:
        return
    decision = session.get_one(Decision, version.decision_id)
    _count_refusal(app, session, decision, reason)
    outcome = f"refused by the gate: {reason}"
    evaluation.close_decision(app, session, decision.id, result="refused", outcome=outcome)


def _count_refusal(app: App, session: Session, decision: Decision, reason: str) -> None:
    for batch in records.batches_by_id(session, decision.batches).values():
        batch.refusals += 1
        session.flush()
        if batch.refusals >= HELD_AFTER_REFUSALS and batch.state == "pending":
            _hold(app, session, batch, f"held after {batch.refusals} refusals: {reason}")


def _hold(app: App, session: Session, batch: Batch, reason: str) -> None:
    move(session, batch, "held", actor="daemon", reason=reason, epoch=app.epoch, state_reason=reason)
    said = f"{reason}; `rekindle batch release {batch.id}` lets it train again"
    alerts.write(session, stream_id=batch.stream_id, subject="batch", subject_id=str(batch.id), reason=said)
