"""How a stream learned over time: the metrics of continual learning over its live line."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.flow import evaluation, records
from orchestrator.service.records import TransferRecord
from orchestrator.service.views import common
from storage import lineage
from storage.tables import Decision, EvalSet, Evaluation, Stream, Version
from strategies import metrics
from strategies.errors import BadScores

Row = list[float]


def show_transfer(app: App, name: str) -> TransferRecord:
    """Stage i is the i-th retrain that leads to the live version, task i the eval sets of its batches.

    A metric is None where one of its cells was not measured, such as sets that have gone into pools since.
    """
    with app.database.read() as session:
        stream = common.find_stream(session, name)
        stages = _stages(session, stream)
        tasks = [_sets(session, stage) for stage in stages]
        scores, metric = _scores(session, stream, stages, tasks)
        initial, _ = _scores(session, stream, [records.base_of(session, stream.id)], tasks) if stages else ([[]], None)
    signed = metrics.from_losses if metric == "loss" else np.asarray
    matrix, first = signed(scores), signed(initial[0])
    return TransferRecord(
        stages=[stage.number for stage in stages],
        tasks=[[one.name for one in sets] for sets in tasks],
        metric=metric,
        average_performance=_or_none(lambda: metrics.average_performance(matrix)),
        average_over_time=_or_none(lambda: metrics.average_over_time(matrix)),
        backward_transfer=_or_none(lambda: metrics.backward_transfer(matrix)),
        forward_transfer=_or_none(lambda: metrics.forward_transfer(matrix, first)),
        forgetting=_or_none(lambda: metrics.forgetting(matrix)),
        plasticity=_or_none(lambda: metrics.plasticity(matrix)),
    )


def _stages(session: Session, stream: Stream) -> list[Version]:
    line = [session.get_one(Version, one.version_id) for one in lineage.live_stack(session, stream.id)]
    return [version for version in line if version.decision_id is not None]


def _sets(session: Session, stage: Version) -> list[EvalSet]:
    batches = session.get_one(Decision, stage.decision_id).batches
    query = select(EvalSet).where(EvalSet.batch_id.in_(batches), EvalSet.kind == "batch").order_by(EvalSet.id)
    return list(session.scalars(query))


def _scores(
    session: Session, stream: Stream, versions: Sequence[Version], tasks: Sequence[Sequence[EvalSet]]
) -> tuple[list[Row], str | None]:
    """Versions by tasks, NaN where something was not measured; and the metric."""
    hashed = evaluation.settings_hash(records.settings_of(session, stream.id))
    known = [records.evaluations_of(session, version.id, hashed) for version in versions]
    metric = next((row.metric for found in known for row in found.values()), None)
    return [[_joint(found, sets) for sets in tasks] for found in known], metric


def _joint(found: dict[str, Evaluation], sets: Sequence[EvalSet]) -> float:
    """The value over several sets: by tokens for losses, by examples for accuracies."""
    rows = [found.get(one.content_hash) for one in sets]
    weights = [_weight(row) for row in rows if row is not None]
    if len(weights) < max(1, len(rows)) or not sum(weights):
        return float("nan")
    return float(np.average([row.value for row in rows if row is not None], weights=weights))


def _weight(row: Evaluation) -> float:
    return float(row.details["tokens"] if row.metric == "loss" else row.examples)


def _or_none(metric: Callable[[], float]) -> float | None:
    try:
        value = metric()
    except BadScores:
        return None
    return value if np.isfinite(value) else None
