"""Step three: the choice of strategy, data and settings, measured first, recorded with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.errors import BadInput, Conflict
from orchestrator.flow import evaluation, job, probe, records, signals
from orchestrator.flow.each import each
from orchestrator.jobs import queue
from orchestrator.settings import StreamSettings
from storage import lineage, manifests
from storage.moves import move
from storage.states import JOB_GAVE_UP, JOB_UNFINISHED
from storage.tables import Batch, Decision, EvalSet, Job, Plan, Stream, Version
from strategies.chooser import choice
from strategies.chooser.choice import StrategySettings
from strategies.chooser.evidence import in_words
from strategies.contract import MeasureWork, Signals
from strategies.contract import Plan as PlanRecord
from strategies.contract.graph import batches_drawn
from strategies.errors import StrategyError
from strategies.settings import Closed
from strategies.settings.mixing import WeightedSettings

KEY_CHARACTERS = 56


class DryRun(Closed):
    """What a retrain would do. While ``state`` is measuring, ask again: shift and sizes need the model."""

    state: str
    job: int | None
    stream: str
    parent: int
    batches: list[int]
    strategy: str | None = None
    reason: str = ""
    values: dict[str, Any] = Field(default_factory=dict)
    alternatives: list[dict[str, str]] = Field(default_factory=list)
    probe: dict[str, Any] | None = None
    """The short runs that would come before the choice, and what they cost."""
    measured: dict[str, str] = Field(default_factory=dict)
    """The signals in words."""
    signals: dict[str, Any] = Field(default_factory=dict)


def step(app: App) -> bool:
    """Take every open decision as far as it goes."""
    with app.database.read() as session:
        waiting = session.scalars(select(Decision.id).where(Decision.closed_at.is_(None)).order_by(Decision.id)).all()
    return each(partial(_advance, app), waiting)


def request(app: App, stream_name: str, *, strategy: str | None, actor: str, reason: str = "asked for") -> Decision:
    """The stream's open decision, or a new one about its pending batches.

    Raises:
        NotFound: no such stream, or nothing live yet.
        BadInput: the strategy is unknown or does not fit the stream's settings.
        Conflict: nothing is pending, the stream is paused, or this very decision was made before.
    """
    with app.database.write() as session:
        stream = records.stream_by_name(session, stream_name)
        found = open_or_new(app, session, stream, strategy=strategy, actor=actor, reason=reason)
    app.wake.set()
    return found


def open_or_new(
    app: App, session: Session, stream: Stream, *, strategy: str | None, actor: str, reason: str
) -> Decision:
    """As :func:`request`, within a transaction."""
    existing = records.open_decision(session, stream.id)
    if existing is not None:
        return existing
    settings = _with_strategy(records.settings_of(session, stream.id), strategy)
    batches = _frozen_batches(session, stream)
    live = records.live_of(session, stream)
    decision = Decision(
        stream_id=stream.id,
        revision_id=records.revision_of(session, stream.id).id,
        parent_version_id=live.id,
        state="measuring",
        key=_key(session, stream, live, batches, settings),
        requested=settings.strategy.name,
        batches=[batch.id for batch in batches],
        signals={},
        settings=settings.strategy.model_dump(mode="json"),
        reason=reason,
        alternatives=[],
        actor=actor,
        created_at=app.clock.now(),
    )
    return _insert(session, decision, stream)


def dry_run(app: App, stream_name: str, *, strategy: str | None) -> DryRun:
    """What :func:`request` would lead to, without deciding anything; only the measurement is kept.

    Raises:
        As :func:`request`; Conflict too where the live version's scoring or the measuring failed for good.
    """
    with app.database.write() as session:
        stream = records.stream_by_name(session, stream_name)
        settings = _with_strategy(records.settings_of(session, stream.id), strategy)
        batches = _frozen_batches(session, stream)
        live = records.live_of(session, stream)
        shared = {"stream": stream.name, "parent": live.number, "batches": [batch.id for batch in batches]}
        if not base_ready(session, stream, batches):
            if hopeless := _hopeless(session, stream, live, batches):
                raise Conflict(hopeless)
            return DryRun(state="measuring", job=None, **shared)
        measured = queue_measure(session, stream=stream, parent=live, batches=batches, settings=settings)
        if measured.state in JOB_GAVE_UP:
            raise Conflict(f"measuring failed: {measured.error}; `rekindle job logs {measured.id}` shows why")
        if measured.state != "succeeded":
            return DryRun(state="measuring", job=measured.id, **shared)
        evidence = signals.gather(
            app, session, stream=stream, parent=live, batches=batches, settings=settings, measured=measured
        )
    app.wake.set()
    plan = _plan(evidence, settings.strategy)
    return DryRun(
        state="decided",
        job=measured.id,
        strategy=plan.strategy,
        reason=plan.reason,
        values={name: one.model_dump() for name, one in plan.values.items()},
        alternatives=choice.alternatives(evidence, settings.strategy),
        probe=_probe(evidence, settings.strategy),
        measured=in_words(evidence),
        signals=evidence.model_dump(mode="json", exclude={"parameters"}),
        **shared,
    )


def base_ready(session: Session, stream: Stream, batches: Sequence[Batch]) -> bool:
    """Whether the live version has the scores that a decision on the batches looks at, and its anchor stands.

    No training decision is made before.
    """
    live = lineage.live_version(session, stream.id)
    if live is None or not evaluation.is_measured(session, stream, live, _sets(session, stream, batches)):
        return False
    return not records.lacks_anchor(session, stream) or bool(records.anchor_batches(session, stream.id))


def _key(session: Session, stream: Stream, live: Version, batches: Sequence[Batch], settings: StreamSettings) -> str:
    """Equal for the same parent, batches, settings and history: a decision that the gate could judge is made once.

    The history counts promotions, refusals, and decisions that ended before the gate, so that these can be tried again.
    """
    ids = [batch.id for batch in batches]
    question = records.fingerprint(
        {
            "parent": live.id,
            "promotion": lineage.live_stack(session, stream.id)[-1].id,
            "promotions": signals.promotions_made(session, stream),
            "batches": ids,
            "strategy": settings.strategy.model_dump(mode="json"),
            "training": settings.training.model_dump(mode="json"),
            "gate": settings.gate.model_dump(mode="json"),
            "refusals": signals.refusals(session, stream.id, ids),
        }
    )[:KEY_CHARACTERS]
    earlier = session.scalars(select(Decision).where(Decision.key.startswith(question)).order_by(Decision.id)).all()
    unjudged = [one for one in earlier if one.result != "inconclusive"]
    return f"{question}-{len(unjudged)}"


def queue_measure(
    session: Session, *, stream: Stream, parent: Version, batches: Sequence[Batch], settings: StreamSettings
) -> Job:
    """The measure job of these batches under this version: one for equal questions, dry run or not."""
    old = signals.old_batches(session, stream, exclude=[batch.id for batch in batches])
    sources = [job.source_file(batch, "new") for batch in batches] + [job.source_file(batch, "old") for batch in old]
    question = records.fingerprint([[one.batch, one.sha256] for one in sources])
    division = _division(session, parent, settings)
    anchor = next((batch.id for batch in old if batch.kind == "anchor"), None)
    work = MeasureWork(sources=tuple(sources), training=settings.training, compared_with=anchor, **division)
    training, divided = work.training.model_dump(mode="json"), work.model_dump(mode="json", include={*division})
    told = f":{records.fingerprint(divided)[:16]}" if division else ""
    return queue.queue(
        session,
        share=queue.share_of(settings),
        stream_id=stream.id,
        name="measure",
        key=f"measure:{parent.id}:{question[:24]}:{records.fingerprint(training)[:16]}{told}",
        spec=queue.spec(settings, model=evaluation.model_of(session, parent, settings), work=work),
    )


def _division(session: Session, parent: Version, settings: StreamSettings) -> dict[str, Any]:
    """How documents are told apart while they are measured; clusters are the parent's, unless it has none."""
    mixing = choice.mixing_of(settings.strategy)
    if not isinstance(mixing, WeightedSettings) or mixing.domains.by == "batch":
        return {}
    if mixing.domains.by == "column":
        return {"divide": "column"}
    known = records.artifacts_of(session, parent.id).get("state/domains")
    usable = known is not None and manifests.is_available(session, known)
    return {"divide": "clusters", "clusters": mixing.domains.clusters, "space": f"manifest:{known}" if usable else None}


def _with_strategy(settings: StreamSettings, strategy: str | None) -> StreamSettings:
    if strategy is None or strategy == settings.strategy.name:
        return settings
    if strategy not in choice.NAMES:
        raise BadInput(f"unknown strategy {strategy!r}; choose one of {', '.join(choice.NAMES)}")
    return settings.model_copy(update={"strategy": StrategySettings.model_validate({"name": strategy})})


def _frozen_batches(session: Session, stream: Stream) -> Sequence[Batch]:
    if stream.state != "active":
        raise Conflict(f"stream {stream.name!r} is {stream.state}; `rekindle stream resume {stream.name}` first")
    batches = records.pending_batches(session, stream.id)
    if not batches:
        raise Conflict(f"stream {stream.name!r} has no pending batch; `rekindle ingest {stream.name} FILE` brings one")
    return batches


def _insert(session: Session, decision: Decision, stream: Stream) -> Decision:
    taken = session.scalar(select(Decision).where(Decision.key == decision.key))
    if taken is not None:
        raise Conflict(
            f"decision {taken.id} already tried these batches with these settings ({taken.outcome}); "
            f"wait for more data or change the settings with `rekindle stream set {stream.name}`"
        )
    session.add(decision)
    try:
        session.flush()
    except IntegrityError as error:
        raise Conflict(f"stream {stream.name!r} has just got another decision; ask again") from error
    return decision


def _advance(app: App, decision_id: int) -> bool:
    with app.database.write() as session:
        decision = session.get_one(Decision, decision_id)
        stream = session.get_one(Stream, decision.stream_id)
        live = lineage.live_version(session, stream.id)
        if live is None or live.id != decision.parent_version_id:
            return _end_as_stale(app, session, decision, "stale: the parent version is no longer live")
        held = _held(session, decision)
        if held:
            return _end_as_stale(app, session, decision, f"stale: batch {held[0]} is held; the others are tried again")
        if decision.state == "measuring":
            return _measure_or_decide(app, session, decision, stream)
        return job.advance(app, session, decision)


def _held(session: Session, decision: Decision) -> list[int]:
    """Batches of the decision, or of its plan's sources, that were held or erased since."""
    plan = session.scalar(select(Plan).where(Plan.decision_id == decision.id))
    record = None if plan is None else PlanRecord.model_validate(plan.spec)
    named_ones = set() if record is None else batches_drawn(record)
    out = session.scalars(
        select(Batch)
        .where(Batch.stream_id == decision.stream_id, Batch.state.in_(("held", "erased")))
        .order_by(Batch.id)
    )
    return [one.id for one in out if one.id in decision.batches or records.source_name(one) in named_ones]


def _end_as_stale(app: App, session: Session, decision: Decision, reason: str) -> bool:
    """What is queued is cancelled, what runs is told to stop, nothing may go live."""
    for one in session.scalars(select(Job).where(Job.decision_id == decision.id)):
        if one.state in JOB_UNFINISHED:
            queue.cancel(session, one, actor="daemon", reason=reason)
    candidates = session.scalars(
        select(Version).where(Version.decision_id == decision.id, Version.state.in_(("candidate", "evaluated")))
    )
    for candidate in candidates:
        move(session, candidate, "rejected", actor="daemon", reason=reason, epoch=app.epoch)
    evaluation.close_decision(app, session, decision.id, result="stale", outcome=reason)
    return True


def _measure_or_decide(app: App, session: Session, decision: Decision, stream: Stream) -> bool:
    batches = list(records.batches_by_id(session, decision.batches).values())
    if not base_ready(session, stream, batches):
        return _end_if_hopeless(app, session, decision, stream, batches)
    parent = session.get_one(Version, decision.parent_version_id)
    settings = _settings_of_decision(session, decision)
    measured = queue_measure(session, stream=stream, parent=parent, batches=batches, settings=settings)
    if measured.state in JOB_GAVE_UP:
        outcome = (
            f"measuring failed: {measured.error or measured.state}; `rekindle job retry {measured.id}`, then retrain"
        )
        evaluation.close_decision(app, session, decision.id, result="failed", outcome=outcome)
        return True
    if measured.state != "succeeded":
        return False
    evidence = signals.gather(
        app, session, stream=stream, parent=parent, batches=batches, settings=settings, measured=measured
    )
    try:
        probed = probe.advance(session, decision, evidence, settings)
    except StrategyError as error:
        evaluation.close_decision(app, session, decision.id, result="failed", outcome=str(error))
        return True
    return probed is not None and _decide(app, session, decision, probed, settings)


def _end_if_hopeless(app: App, session: Session, decision: Decision, stream: Stream, batches: Sequence[Batch]) -> bool:
    outcome = _hopeless(session, stream, session.get_one(Version, decision.parent_version_id), batches)
    if outcome is None:
        return False
    evaluation.close_decision(app, session, decision.id, result="failed", outcome=outcome)
    return True


def _sets(session: Session, stream: Stream, batches: Sequence[Batch]) -> list[EvalSet]:
    return evaluation.sets_about(session, stream.id, [batch.id for batch in batches])


def _hopeless(session: Session, stream: Stream, parent: Version, batches: Sequence[Batch]) -> str | None:
    """Nothing can be decided while the base cannot be measured: what to say instead of waiting for ever."""
    failed = evaluation.failed_job(session, stream, parent, _sets(session, stream, batches))
    if failed is None:
        refusal = records.refusal_of_samples(session, stream.id)
        return refusal and f"no anchor, and texts of the base cannot stand in: {refusal}; register a stream with one"
    return f"job {failed.id} {failed.state}: {failed.error}; `rekindle job retry {failed.id}`, then retrain"


def _decide(app: App, session: Session, decision: Decision, evidence: Signals, settings: StreamSettings) -> bool:
    try:
        plan = _plan(evidence, settings.strategy)
    except BadInput as error:
        evaluation.close_decision(app, session, decision.id, result="failed", outcome=error.message)
        return True
    row = Plan(
        stream_id=decision.stream_id,
        decision_id=decision.id,
        state="open",
        spec=plan.model_dump(mode="json"),
        created_at=app.clock.now(),
    )
    session.add(row)
    decision.reason = plan.reason
    session.flush()
    move(
        session,
        decision,
        "decided",
        actor="daemon",
        reason=plan.reason,
        epoch=app.epoch,
        strategy=plan.strategy,
        signals=evidence.model_dump(mode="json", exclude={"parameters"}),
        alternatives=choice.alternatives(evidence, settings.strategy),
        decided_at=app.clock.now(),
    )
    job.queue_plan(session, decision=decision, plan=row, record=plan, settings=settings)
    return True


def _plan(evidence: Signals, strategy: StrategySettings) -> PlanRecord:
    try:
        return choice.plan(evidence, strategy)
    except StrategyError as error:
        raise BadInput(str(error)) from error


def _probe(evidence: Signals, strategy: StrategySettings) -> dict[str, Any] | None:
    found = choice.probe(evidence, strategy)
    return None if found is None else {**found.model_dump(mode="json", exclude={"trials"}), "tried": [*found.trials]}


def _settings_of_decision(session: Session, decision: Decision) -> StreamSettings:
    revised = records.revision_settings(session, decision.revision_id)
    return revised.model_copy(update={"strategy": StrategySettings.model_validate(decision.settings)})
