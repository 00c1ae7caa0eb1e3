"""Step two: triggers are due or not, and every verdict is a row with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchestrator import triggers
from orchestrator.app import App
from orchestrator.errors import Conflict
from orchestrator.flow import decision, records
from orchestrator.flow.each import each
from orchestrator.settings import AmountTrigger, TriggerSettings
from orchestrator.triggers import Facts, Opinion
from storage.tables import Decision, Firing, Promotion, Stream, Trigger

LATE_AFTER_S = 60.0
"""A firing that is later than this was missed: nobody was up for it."""
SETTINGS: TypeAdapter[TriggerSettings] = TypeAdapter(TriggerSettings)


def step(app: App) -> bool:
    """Judge every trigger that is due, and those that were deferred."""
    with app.database.read() as session:
        due = [one.id for one in _active(session)]
    return each(partial(_advance, app), due)


def next_instant(app: App) -> datetime | None:
    """The next instant at which some trigger is due: what the alarm clock is set to."""
    with app.database.read() as session:
        instants = [one.next_at for one in _active(session) if one.next_at is not None]
    return min(instants, default=None)


def facts_of(session: Session, stream: Stream) -> Facts:
    """What triggers may look at."""
    pending = records.pending_batches(session, stream.id)
    return Facts(pending_batches=len(pending), pending_documents=sum(batch.train_documents for batch in pending))


def _active(session: Session) -> Sequence[Trigger]:
    return session.scalars(
        select(Trigger)
        .join(Stream, Stream.id == Trigger.stream_id)
        .where(Trigger.state == "active", Stream.state == "active")
        .order_by(Trigger.id)
    ).all()


def _built(trigger: Trigger) -> triggers.Trigger:
    return triggers.build(SETTINGS.validate_python(trigger.settings), trigger.timezone)


def _advance(app: App, trigger_id: int) -> bool:
    with app.database.write() as session:
        trigger = session.get_one(Trigger, trigger_id)
        stream = session.get_one(Stream, trigger.stream_id)
        built = _built(trigger)
        if not built.timed:
            return _fire_untimed(app, session, stream, trigger, built)
        now = app.clock.now()
        if trigger.next_at is None:
            trigger.next_at = built.next_after(now, start=trigger.created_at)
            return False
        if trigger.next_at > now:
            return _judge_deferred(app, session, stream, trigger)
        return _fire_timed(app, session, stream, trigger, built, now)


def _fire_timed(
    app: App, session: Session, stream: Stream, trigger: Trigger, built: triggers.Trigger, now: datetime
) -> bool:
    """The newest due instant is judged; earlier ones that nobody was up for are one row that says how many."""
    first = trigger.next_at or now
    newest, missed = _newest_due(built, trigger, first, now)
    settings = SETTINGS.validate_python(trigger.settings)
    assert not isinstance(settings, AmountTrigger), "it has no instants to miss"
    if missed:
        reason = f"{missed} earlier firings were missed while nothing was running; they are covered by the next"
        _record(app, session, trigger, first, "skipped", reason, {"missed": missed, "until": newest.isoformat()})
    late_s = (now - newest).total_seconds()
    if late_s > LATE_AFTER_S and settings.missed == "skip":
        _record(
            app, session, trigger, newest, "skipped", f"missed by {late_s:.0f} s and set to skip", {"late_s": late_s}
        )
    else:
        _judge(app, session, stream, trigger, newest, built)
    trigger.next_at = built.next_after(now, start=trigger.created_at)
    return True


def _newest_due(built: triggers.Trigger, trigger: Trigger, first: datetime, now: datetime) -> tuple[datetime, int]:
    """The last instant that is not later than now, and how many earlier ones passed (counted up to 10 000)."""
    newest, missed = first, 0
    while missed < 10_000:
        following = built.next_after(newest, start=trigger.created_at)
        if following is None or following > now:
            break
        newest, missed = following, missed + 1
    return newest, missed


def _judge(
    app: App, session: Session, stream: Stream, trigger: Trigger, due_at: datetime, built: triggers.Trigger
) -> None:
    facts = facts_of(session, stream)
    said = built.judge(facts)
    verdict, reason, made = _verdict(app, session, stream, trigger, said)
    _record(app, session, trigger, due_at, verdict, reason, facts.model_dump(), made)


def _verdict(
    app: App, session: Session, stream: Stream, trigger: Trigger, said: Opinion
) -> tuple[str, str, Decision | None]:
    if not said.retrain:
        return "declined", said.reason, None
    busy = records.open_decision(session, stream.id)
    if busy is not None:
        return "deferred", f"decision {busy.id} is under way; judged again at its end", None
    try:
        made = decision.open_or_new(
            app, session, stream, strategy=None, actor=f"trigger:{trigger.name}", reason=said.reason
        )
    except Conflict as error:
        return "declined", error.message, None
    return "fired", said.reason, made


def _judge_deferred(app: App, session: Session, stream: Stream, trigger: Trigger) -> bool:
    """A firing that met a running decision is judged again once that has ended."""
    deferred = session.scalars(
        select(Firing)
        .where(Firing.trigger_id == trigger.id, Firing.verdict == "deferred")
        .order_by(Firing.due_at.desc())
    ).all()
    if not deferred or records.open_decision(session, stream.id) is not None:
        return False
    facts = facts_of(session, stream)
    newest, *older = deferred
    for firing in older:
        firing.verdict, firing.reason = "skipped", "a later deferred firing covers it"
    verdict, reason, made = _verdict(app, session, stream, trigger, _built(trigger).judge(facts))
    newest.verdict, newest.reason, newest.evidence = verdict, f"{reason} (deferred before)", facts.model_dump()
    newest.decision_id = None if made is None else made.id
    return True


def _fire_untimed(app: App, session: Session, stream: Stream, trigger: Trigger, built: triggers.Trigger) -> bool:
    """An amount trigger is due once for each set of pending batches that suffices."""
    facts = facts_of(session, stream)
    said = built.judge(facts)
    if not said.retrain or records.open_decision(session, stream.id) is not None:
        return False
    state = {**facts.model_dump(), "batches": [batch.id for batch in records.pending_batches(session, stream.id)]}
    state["refusals"] = sum(batch.refusals for batch in records.pending_batches(session, stream.id))
    # Of every kind: after a rollback the same batches may be asked about a second time.
    state["promotion"] = session.scalar(select(func.max(Promotion.id)).where(Promotion.stream_id == stream.id))
    state["revision"] = records.revision_of(session, stream.id).id
    last = session.scalar(select(Firing).where(Firing.trigger_id == trigger.id).order_by(Firing.id.desc()).limit(1))
    if last is not None and last.evidence == state:
        return False
    verdict, reason, made = _verdict(app, session, stream, trigger, said)
    _record(app, session, trigger, app.clock.now(), verdict, reason, state, made)
    return True


def _record(
    app: App,
    session: Session,
    trigger: Trigger,
    due_at: datetime,
    verdict: str,
    reason: str,
    evidence: dict[str, Any],
    made: Decision | None = None,
) -> None:
    taken = session.scalar(select(Firing.id).where(Firing.trigger_id == trigger.id, Firing.due_at == due_at))
    if taken is not None:
        return
    session.add(
        Firing(
            trigger_id=trigger.id,
            due_at=due_at,
            timezone=trigger.timezone,
            verdict=verdict,
            reason=reason,
            evidence=evidence,
            decision_id=None if made is None else made.id,
            created_at=app.clock.now(),
        )
    )
    session.flush()
