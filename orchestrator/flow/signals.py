"""The evidence a strategy decides on, gathered from the records and the measure job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.flow import circumstances, evaluation, records
from orchestrator.settings import StreamSettings
from storage import lineage, manifests
from storage.tables import Batch, Decision, Job, Plan, Promotion, Stream, Version, VersionBatch
from strategies.contract import Measured, Refusal, Resolved, Signals, SourceFacts
from strategies.contract.graph import ANSWERS
from strategies.scores import worsening

OWN_SETS = ("anchor", "batch")
"""Kinds of eval sets that are made of the held-out documents of one batch."""


def old_batches(session: Session, stream: Stream, *, exclude: Sequence[int]) -> list[Batch]:
    """What may be replayed: the anchor, and trained batches, which are neither held nor erased."""
    trained = session.scalars(
        select(Batch)
        .where(Batch.stream_id == stream.id, Batch.kind == "data", Batch.state == "trained", Batch.id.not_in(exclude))
        .order_by(Batch.id)
    ).all()
    return [*records.anchor_batches(session, stream.id), *trained]


def gather(
    app: App,
    session: Session,
    *,
    stream: Stream,
    parent: Version,
    batches: Sequence[Batch],
    settings: StreamSettings,
    measured: Job,
) -> Signals:
    """Everything that a strategy may look at."""
    result = records.result_of(measured)
    found = {one.name: one for one in result.measured}
    seen = _samples_seen(session, parent)
    old = old_batches(session, stream, exclude=[batch.id for batch in batches])
    anchor = next((batch for batch in old if batch.kind == "anchor"), None)
    apart = {one.batch_id: one.name for one in records.active_sets(session, stream.id) if one.kind in OWN_SETS}
    return Signals(
        task=settings.task,
        training=settings.training,
        new=tuple(_facts(batch, found, 0, apart) for batch in batches),
        old=tuple(_facts(batch, found, seen.get(batch.id, 0), apart) for batch in old if batch.kind == "data"),
        anchor=None if anchor is None else _facts(anchor, found, None, apart),
        labels=tuple(_labels(session, parent, [*batches, *old])),
        parent=f"{stream.name}/{parent.number}",
        parent_answer=tuple(sorted(role for role in records.artifacts_of(session, parent.id) if role in ANSWERS)),
        parent_labels=tuple(records.known_labels(session, parent)),
        taught_labels=tuple(sorted({str(label) for batch in [*batches, *old] for label in batch.labels})),
        parent_state=_available_state(session, parent),
        parent_settings=_resolved(session, parent),
        anchor_rise=_anchor_rise(session, stream, parent, settings),
        anchor_tolerance=settings.gate.tolerance("loss"),
        refused=tuple(refusals(session, stream.id, [batch.id for batch in batches])),
        stage=promotions_made(session, stream),
        parameters=result.parameters,
        pools=tuple(one.name for one in records.active_sets(session, stream.id) if one.kind == "pool"),
        space=_space(measured),
        circumstances=circumstances.gather(
            session, resources=app.resources, stream=stream, parent=parent, batches=batches, settings=settings
        ),
    )


def _space(measured: Job) -> str | None:
    manifest = (measured.artifacts or {}).get("state/domains")
    return None if manifest is None else f"manifest:{manifest}"


def refusals(session: Session, stream_id: str, batches: Sequence[int]) -> list[Refusal]:
    """What refused decisions that had one of these batches resolved, oldest first."""
    refused = session.execute(
        select(Decision, Plan)
        .join(Plan, Plan.decision_id == Decision.id)
        .where(Decision.stream_id == stream_id, Decision.result == "refused")
        .order_by(Decision.id)
    ).all()
    return [
        Refusal.model_validate(
            {
                **_values(plan),
                "strategy": decision.strategy,
                "only_forgot": circumstances.only_forgot(session, decision),
            }
        )
        for decision, plan in refused
        if set(decision.batches) & set(batches)
    ]


def _values(plan: Plan) -> dict[str, Any]:
    return {name: one["value"] for name, one in plan.spec.get("values", {}).items()}


def _resolved(session: Session, version: Version) -> Resolved:
    plan = session.scalar(select(Plan).where(Plan.decision_id == version.decision_id)) if version.decision_id else None
    if plan is None:
        return Resolved()
    return Resolved.model_validate({**_values(plan), "strategy": plan.spec.get("strategy")})


def _samples_seen(session: Session, parent: Version) -> dict[int, int]:
    """Batch id -> packed rows (or examples) that the parent and its ancestors took of it."""
    line = [parent.id, *lineage.ancestors(session, parent.id)]
    rows = session.execute(
        select(VersionBatch.batch_id, func.sum(VersionBatch.samples))
        .where(VersionBatch.version_id.in_(line))
        .group_by(VersionBatch.batch_id)
    )
    return {batch_id: int(samples) for batch_id, samples in rows}


def _facts(
    batch: Batch, found: Mapping[str, Measured], seen_rows: int | None, apart: Mapping[int | None, str]
) -> SourceFacts:
    one = found[records.source_name(batch)]
    seen = one.rows if seen_rows is None else seen_rows
    return SourceFacts(**one.model_dump(), seen_rows=seen, eval_set=apart.get(batch.id))


def _labels(session: Session, parent: Version, batches: Sequence[Batch]) -> list[str]:
    known = records.known_labels(session, parent)
    fresh = sorted({str(label) for batch in batches for label in batch.labels} - set(known))
    return [*known, *fresh]


def _anchor_rise(session: Session, stream: Stream, parent: Version, settings: StreamSettings) -> float | None:
    """Relative rise of the anchor's loss from the base to the parent, on the ``select`` half."""
    anchor = next((one for one in records.active_sets(session, stream.id) if one.kind == "anchor"), None)
    if anchor is None:
        return None
    hashed = evaluation.settings_hash(settings)
    base = records.evaluations_of(session, records.base_of(session, stream.id).id, hashed).get(anchor.content_hash)
    now = records.evaluations_of(session, parent.id, hashed).get(anchor.content_hash)
    if base is None or now is None or now.metric != "loss" or not base.value_select or now.value_select is None:
        return None
    return worsening(now.metric, base.value_select, now.value_select)


def _available_state(session: Session, parent: Version) -> tuple[str, ...]:
    """Roles of the parent's state whose bytes are still there: gc may have taken those of a version long retired."""
    artifacts = records.artifacts_of(session, parent.id)
    return tuple(
        role for role, one in artifacts.items() if role.startswith("state/") and manifests.is_available(session, one)
    )


def promotions_made(session: Session, stream: Stream) -> int:
    """How often a version of the stream went live, rollbacks left out."""
    made = session.scalar(
        select(func.count())
        .select_from(Promotion)
        .where(Promotion.stream_id == stream.id, Promotion.kind != "rollback")
    )
    return int(made or 0)
