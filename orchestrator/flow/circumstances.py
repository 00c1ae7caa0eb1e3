"""What a strategy may know beside its data, gathered from the records and the machine."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import Resources
from orchestrator.flow import records, repair
from orchestrator.flow.forgetting import forgotten
from orchestrator.settings import StreamSettings
from storage import lineage
from storage.tables import Batch, Decision, Job, Plan, Promotion, Stream, Verdict, Version
from strategies.contract.circumstances import Circumstances, EarlierDecision, Hardware, Result

LOOKED_BACK = 4
"""Versions of the live line, the newest among them, that forgetting is counted over."""
DECISIONS = 8
"""Earlier decisions that are looked at."""


def gather(
    session: Session,
    *,
    resources: Resources,
    stream: Stream,
    parent: Version,
    batches: Sequence[Batch],
    settings: StreamSettings,
) -> Circumstances:
    """All of it, as of now."""
    known = records.known_labels(session, parent)
    labels = sorted({str(label) for batch in batches for label in batch.labels})
    line = [session.get_one(Version, one.version_id) for one in lineage.live_stack(session, stream.id)][-LOOKED_BACK:]
    duplicates = sum(batch.duplicates for batch in batches)
    return Circumstances(
        new_labels=tuple(label for label in labels if label not in known),
        known_labels=tuple(label for label in labels if label in known),
        duplicates=duplicates,
        near_duplicates=sum(batch.near_duplicates for batch in batches),
        arrived=sum(batch.documents for batch in batches) + duplicates,
        forgotten=tuple(forgotten(session, line, records.active_sets(session, stream.id), settings)),
        decisions=tuple(_earlier(session, stream)),
        hardware=Hardware(
            cores=resources.cpus,
            memory_gib=_memory_gib(),
            gpus=len(resources.gpus),
            job_cores=settings.resources.cpus,
            job_gpus=settings.resources.gpus,
        ),
        max_hours=settings.budget.max_hours,
        tokens_per_s=_speed(session, stream),
    )


def _earlier(session: Session, stream: Stream) -> list[EarlierDecision]:
    query = (
        select(Decision, Plan)
        .join(Plan, Plan.decision_id == Decision.id)
        .where(Decision.stream_id == stream.id, Decision.closed_at.is_not(None), Plan.state != "stale")
        .order_by(Decision.id.desc())
        .limit(DECISIONS)
    )
    left = lineage.left_behind(session, stream.id)
    return [_ended(session, decision, plan, left) for decision, plan in reversed(session.execute(query).all())]


def _ended(session: Session, decision: Decision, plan: Plan, left: Mapping[int, Promotion]) -> EarlierDecision:
    result, reason = _result(session, decision, left)
    resolved = plan.spec.get("values", {})
    return EarlierDecision(
        decision=decision.id,
        strategy=decision.strategy or decision.requested,
        choice=resolved.get("choice", {}).get("value"),
        replay=resolved.get("replay", {}).get("value"),
        result=result,
        reason=reason,
        only_forgot=only_forgot(session, decision),
    )


def _result(session: Session, decision: Decision, left: Mapping[int, Promotion]) -> tuple[Result, str]:
    """How a decision ended, and why: of one whose versions were all rolled back the rollback's own reason."""
    was_live = (
        select(Version)
        .where(Version.decision_id == decision.id, Version.id.in_(select(Promotion.version_id)))
        .order_by(Version.id.desc())
    )
    said = decision.outcome or ""
    if found := session.scalars(was_live).all():
        stands = next((one for one in found if one.id not in left), None)
        if stands is None:
            return "rolled back", left[found[0].id].reason
        return ("repaired" if stands.strategy == repair.JOB else "promoted"), said
    match decision.result:
        case "refused" | "inconclusive" as judged:
            return judged, said
        case _:
            return "failed", said


def only_forgot(session: Session, decision: Decision) -> bool:
    """What the gate said last of the candidate as it was trained, not of a repair of it."""
    said = (
        select(Verdict)
        .join(Version, Version.id == Verdict.version_id)
        .where(Version.decision_id == decision.id, Version.strategy != repair.JOB)
        .order_by(Verdict.id.desc())
        .limit(1)
    )
    verdict = session.scalar(said)
    return verdict is not None and bool(verdict.details.get("only_forgot"))


def _speed(session: Session, stream: Stream) -> float | None:
    query = select(Job).where(Job.stream_id == stream.id, Job.kind == "train", Job.state == "succeeded")
    found = session.scalar(query.order_by(Job.id.desc()).limit(1))
    return None if found is None else records.result_of(found).facts.get("tokens_per_s")


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return None
