"""What a line of versions forgot, read from stored evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sqlalchemy.orm import Session

from orchestrator.flow import evaluation, records
from orchestrator.settings import StreamSettings
from storage.tables import EvalSet, Evaluation, Version
from strategies.circumstances import Forgotten

Value = Callable[[Evaluation], float | None]


def selected(row: Evaluation) -> float | None:
    """The half that choices may look at."""
    return row.value_select


def whole(row: Evaluation) -> float | None:
    """Both halves: for reports, never for a choice."""
    return row.value


def forgotten(
    session: Session,
    line: Sequence[Version],
    sets: Sequence[EvalSet],
    settings: StreamSettings,
    *,
    value: Value = selected,
) -> Iterator[Forgotten]:
    """Each set's value under the last of the line beside the best that an earlier one of it had."""
    hashed = evaluation.settings_hash(settings)
    scored = [records.evaluations_of(session, version.id, hashed) for version in line]
    for one in sets:
        rows = [found.get(one.content_hash) for found in scored]
        known = [(row.metric, seen) for row in rows if row is not None and (seen := value(row)) is not None]
        if len(known) > 1 and rows[-1] is not None and value(rows[-1]) is not None:
            yield _forgotten(one.name, known, settings)


def _forgotten(name: str, known: list[tuple[str, float]], settings: StreamSettings) -> Forgotten:
    values = [seen for _, seen in known]
    if known[0][0] == "accuracy":
        best = max(values[:-1])
        rise, tolerance = best - values[-1], settings.gate.tolerance_accuracy
        metric = "accuracy"
    else:
        best = min(values[:-1])
        rise, tolerance = (values[-1] - best) / best if best else 0.0, settings.gate.tolerance_loss
        metric = "loss"
    return Forgotten.model_validate(
        {
            "eval_set": name,
            "metric": metric,
            "versions": len(values),
            "best": best,
            "now": values[-1],
            "rise": rise,
            "tolerance": tolerance,
        }
    )
