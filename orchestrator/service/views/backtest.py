"""A backtest as it is shown: how far it is, and at its end both policies side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.flow import evaluation, records
from orchestrator.flow.backtest import Past, fed
from orchestrator.flow.forgetting import forgotten, whole
from orchestrator.service.backtest_records import BacktestEnd, BacktestRecord, BacktestSet, BacktestSide
from orchestrator.service.records import DecisionRecord
from orchestrator.service.views.decisions import decision_records
from storage import lineage
from storage.tables import Decision, EvalSet, Evaluation, Job, Stream, Version


@dataclass(frozen=True, kw_only=True)
class Side:
    """A stream as far as it is compared: its decisions, and the versions that were live, the last one at the end."""

    stream: Stream
    decisions: Sequence[Decision]
    line: Sequence[Version]


def progress(
    session: Session, stream: Stream, scratch: Stream, past: Past, *, changes: dict[str, Any], decision: Decision | None
) -> BacktestRecord:
    """How far the replay is."""
    done = fed(session, scratch, past) - (decision is not None)
    return BacktestRecord(
        stream=stream.name,
        scratch=scratch.name,
        state="running",
        changes=changes,
        batches=past.groups,
        done=done,
        decision=None if decision is None else decision.id,
    )


def ensure_measured(session: Session, stream: Stream, scratch: Stream, past: Past) -> bool:
    """Have the last version of each side measured on all sets of the replay; whether that is done, or cannot be."""
    sets = records.active_sets(session, scratch.id)
    sides = (_recorded(session, stream, past), _replayed(session, scratch))
    asked = [
        evaluation.ensure(session, stream=side.stream, version=side.line[-1], sets=_own(session, side.stream, sets))
        for side in sides
    ]
    return "waiting" not in asked


def finished(session: Session, stream: Stream, scratch: Stream, past: Past, record: BacktestRecord) -> BacktestRecord:
    """The record with both sides."""
    recorded, replayed = _recorded(session, stream, past), _replayed(session, scratch)
    sets = records.active_sets(session, scratch.id)
    rows = tuple(_set(session, one, recorded, replayed) for one in sets)
    newest = {batch for one in replayed.decisions[-1:] for batch in one.batches}
    older = [
        row
        for one, row in zip(sets, rows, strict=True)
        if one.batch_id not in newest and None not in (row.recorded_forgetting, row.replayed_forgetting)
    ]
    return record.model_copy(
        update={
            "state": "done",
            "recorded": _side(session, recorded, sets, [one.recorded_forgetting for one in older]),
            "replayed": _side(session, replayed, sets, [one.replayed_forgetting for one in older]),
            "sets": rows,
        }
    )


def _recorded(session: Session, stream: Stream, past: Past) -> Side:
    decisions = session.scalars(select(Decision).where(Decision.id.in_(past.decisions)).order_by(Decision.id)).all()
    until = max((one.closed_at for one in decisions if one.closed_at is not None), default=None)
    stack = lineage.live_stack(session, stream.id, until=until)
    return Side(stream=stream, decisions=decisions, line=_line(session, stack))


def _replayed(session: Session, scratch: Stream) -> Side:
    query = select(Decision).where(Decision.stream_id == scratch.id).order_by(Decision.id)
    stack = lineage.live_stack(session, scratch.id)
    return Side(stream=scratch, decisions=session.scalars(query).all(), line=_line(session, stack))


def _line(session: Session, stack: Sequence[Any]) -> list[Version]:
    return [session.get_one(Version, one.version_id) for one in stack]


def _own(session: Session, stream: Stream, sets: Sequence[EvalSet]) -> list[EvalSet]:
    """The stream's own rows of these sets: the same bytes, named by the same hash."""
    hashes = [one.content_hash for one in sets]
    query = select(EvalSet).where(EvalSet.stream_id == stream.id, EvalSet.content_hash.in_(hashes))
    return list({one.content_hash: one for one in session.scalars(query.order_by(EvalSet.id))}.values())


def _set(session: Session, one: EvalSet, recorded: Side, replayed: Side) -> BacktestSet:
    mine, theirs = _score(session, recorded, one), _score(session, replayed, one)
    both = mine is not None and theirs is not None
    metric = next((row.metric for row in (mine, theirs) if row is not None), "unknown")
    return BacktestSet(
        eval_set=one.name,
        metric=metric,
        recorded=None if mine is None else mine.value,
        replayed=None if theirs is None else theirs.value,
        change=theirs.value - mine.value if both and mine and theirs else None,
        recorded_forgetting=_forgetting(session, recorded, one),
        replayed_forgetting=_forgetting(session, replayed, one),
    )


def _score(session: Session, side: Side, one: EvalSet) -> Evaluation | None:
    hashed = evaluation.settings_hash(records.settings_of(session, side.stream.id))
    return records.evaluations_of(session, side.line[-1].id, hashed).get(one.content_hash)


def _forgetting(session: Session, side: Side, one: EvalSet) -> float | None:
    settings = records.settings_of(session, side.stream.id)
    found = next(forgotten(session, side.line, [one], settings, value=whole), None)
    return None if found is None else found.rise


def _side(session: Session, side: Side, sets: Sequence[EvalSet], forgetting: Sequence[float | None]) -> BacktestSide:
    shown = decision_records(session, side.decisions)
    results = Counter(one.result for one in shown)
    ended = [one for one in shown if one.result not in ("promoted", None)]
    jobs = _paid_jobs(session, side.decisions)
    known = [one for one in forgetting if one is not None]
    return BacktestSide(
        version=side.line[-1].number,
        strategies=dict(Counter(_strategy(one) for one in shown)),
        promoted=results["promoted"],
        refused=results["refused"],
        inconclusive=results["inconclusive"],
        failed=len(shown) - results["promoted"] - results["refused"] - results["inconclusive"],
        ends=tuple(_end(one) for one in ended),
        unscored=_unscored(session, side, sets),
        tokens=sum(_tokens(job) for job in jobs),
        train_seconds=round(sum(_seconds(job) for job in jobs), 3),
        forgetting=float(np.mean(known)) if known else None,
    )


def _end(one: DecisionRecord) -> BacktestEnd:
    return BacktestEnd(decision=one.id, result=one.result or "open", outcome=one.outcome or one.reason)


def _unscored(session: Session, side: Side, sets: Sequence[EvalSet]) -> str | None:
    if all(_score(session, side, one) is not None for one in sets):
        return None
    version = side.line[-1]
    job = evaluation.given_up(session, version)
    return None if job is None else f"job {job.id} on {side.stream.name}/{version.number} {job.state}: {job.error}"


def _strategy(one: DecisionRecord) -> str:
    return one.strategy or one.requested


def _paid_jobs(session: Session, decisions: Sequence[Decision]) -> Sequence[Job]:
    """Finished jobs that a policy pays for beside measuring: train jobs, proxies, probes, merges and repairs."""
    ids = [one.id for one in decisions]
    query = select(Job).where(
        Job.decision_id.in_(ids), Job.kind.not_in(("measure", "evaluate")), Job.state == "succeeded"
    )
    return session.scalars(query.order_by(Job.id)).all()


def _tokens(job: Job) -> int:
    facts = records.result_of(job).facts
    tried = (facts.get("probe") or {}).get("trials", ())
    return int(facts.get("tokens", 0)) + sum(int(one["tokens"]) for one in tried)


def _seconds(job: Job) -> float:
    if job.started_at is None or job.finished_at is None:
        return 0.0
    return (job.finished_at - job.started_at).total_seconds()
