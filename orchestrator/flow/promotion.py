"""Step six: the gate judges a measured candidate, and what passes becomes live."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.errors import BadInput, Conflict, GateRefused, NotFound
from orchestrator.flow import evaluation, evidence, publication, records
from orchestrator.flow.signals import REFUSED
from orchestrator.policies.gate import judge
from storage import chain, events, lineage
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
    return any([_advance(app, version_id) for version_id in todo])


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
        verdict = _verdict(app, session, stream, version, live) if version.state == "evaluated" else None
        passed = verdict is not None and verdict.outcome == "pass"
        said = verdict.reason if verdict is not None else "the gate refused it before"
    if not passed and not force:
        raise GateRefused(f"{stream_name}/{number} was not promoted: {said}; --force --reason promotes it all the same")
    publication.prepare(app, stream.id, version.id)
    with app.database.write() as session:
        stream, version, now_live = _named(session, stream_name, number)
        if now_live.id != live.id:
            raise Conflict(f"{stream_name}/{now_live.number} became live meanwhile; ask again")
        kind = "promotion" if passed else "forced"
        done = make_live(
            app, session, stream=stream, version=version, kind=kind, reason=reason, actor=actor, verdict=verdict
        )
    publication.point(app, stream.id)
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
    if "answer/model" not in records.artifacts_of(session, version.id):
        raise Conflict(f"the files of {label} were collected; train it again")


def _is_undecided(session: Session, version: Version) -> bool:
    """Whether the flow still has to act: its decision is open, or it is a rebased root that nothing stands against."""
    if version.decision_id is not None:
        return session.get_one(Decision, version.decision_id).closed_at is None
    verdicts = session.scalars(select(Verdict).where(Verdict.version_id == version.id)).all()
    live = lineage.live_version(session, version.stream_id)
    return live is not None and not any(one.compared_with_id == live.id and one.outcome != "pass" for one in verdicts)


def _advance(app: App, version_id: int) -> bool:
    with app.database.write() as session:
        version = session.get_one(Version, version_id)
        stream = session.get_one(Stream, version.stream_id)
        live = records.live_of(session, stream)
        if evaluation.ensure_judgeable(session, stream=stream, candidate=version, live=live) != "complete":
            return False
        verdict = _verdict(app, session, stream, version, live)
        goes_live = verdict.outcome == "pass" or verdict.mode == "record"
        if not goes_live:
            return _decline(app, session, version, verdict)
    if not publication.is_ready(app, stream.name, version.number):
        key = f"publish:{stream.id}:{version.number}"
        return app.background.start(key, lambda: _prepare(app, stream.id, version_id))
    return _go_live(app, version_id, verdict)


def _prepare(app: App, stream_id: str, version_id: int) -> None:
    publication.prepare(app, stream_id, version_id)


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
        if version.decision_id is not None:
            decision = session.get_one(Decision, version.decision_id)
            _mark_trained(app, session, decision, f"trained into {stream.name}/{version.number}")
            outcome = f"{stream.name}/{version.number} is live ({kind}): {verdict.reason}"
            evaluation.close_decision(app, session, decision.id, plan_state="succeeded", outcome=outcome)
    publication.point(app, stream.id)
    return True


def _mark_trained(app: App, session: Session, decision: Decision, reason: str) -> None:
    for batch in records.batches_by_id(session, decision.batches).values():
        if batch.state == "pending":
            move(session, batch, "trained", actor="daemon", reason=reason, epoch=app.epoch, state_reason=reason)


def _verdict(app: App, session: Session, stream: Stream, version: Version, live: Version) -> Verdict:
    """The gate's word on the version against the present live one: written once for the pair."""
    known = session.scalar(
        select(Verdict)
        .where(Verdict.version_id == version.id, Verdict.compared_with_id == live.id)
        .order_by(Verdict.id.desc())
        .limit(1)
    )
    if known is not None:
        return known
    settings = records.settings_of(session, stream.id)
    said = judge(evidence.gather(app, session, stream=stream, candidate=version, live=live), settings.gate)
    verdict = Verdict(
        version_id=version.id,
        compared_with_id=live.id,
        outcome=said.outcome,
        mode=settings.gate.mode,
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
        details={"outcome": said.outcome, "mode": settings.gate.mode, "compared_with": live.number},
    )
    return verdict


def _decline(app: App, session: Session, version: Version, verdict: Verdict) -> bool:
    """Inconclusive: the candidate stays, the batches wait for the next. Failed: it is rejected, once."""
    if verdict.outcome == "inconclusive":
        if version.decision_id is not None:
            outcome = f"inconclusive: {verdict.reason}"
            evaluation.close_decision(app, session, version.decision_id, plan_state="succeeded", outcome=outcome)
        return True
    move(session, version, "rejected", actor="daemon", reason=verdict.reason, epoch=app.epoch)
    if version.decision_id is not None:
        decision = session.get_one(Decision, version.decision_id)
        _count_refusal(app, session, decision, verdict)
        outcome = f"{REFUSED}: {verdict.reason}"
        evaluation.close_decision(app, session, decision.id, plan_state="succeeded", outcome=outcome)
    return True


def _count_refusal(app: App, session: Session, decision: Decision, verdict: Verdict) -> None:
    for batch in records.batches_by_id(session, decision.batches).values():
        batch.refusals += 1
        session.flush()
        if batch.refusals >= HELD_AFTER_REFUSALS and batch.state == "pending":
            _hold(app, session, batch, f"held after {batch.refusals} refusals: {verdict.reason}")


def _hold(app: App, session: Session, batch: Batch, reason: str) -> None:
    move(session, batch, "held", actor="daemon", reason=reason, epoch=app.epoch, state_reason=reason)
    events.record(
        session,
        stream_id=batch.stream_id,
        subject="batch",
        subject_id=str(batch.id),
        action="alert",
        actor="daemon",
        reason=f"{reason}; `rekindle batch release {batch.id}` lets it train again",
    )
