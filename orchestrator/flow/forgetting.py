"""What a line of versions forgot, read from stored evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from sqlalchemy.orm import Session

from orchestrator.flow import evaluation, records
from orchestrator.settings import GateSettings, StreamSettings
from storage.tables import EvalSet, Evaluation, Version
from strategies.contract.circumstances import Forgotten, forgetting
from strategies.scores import Metric

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
    """Each set's value under the last of the line beside the best that an earlier one of it had.

    A version that knows none of a set's classes could forget none of them, and is left out.
    """
    hashed = evaluation.settings_hash(settings)
    scored = [records.evaluations_of(session, version.id, hashed) for version in line]
    labels = [set(records.known_labels(session, version)) for version in line]
    for one in sets:
        rows = [
            found.get(one.content_hash) if not one.labels or known_to.intersection(one.labels) else None
            for found, known_to in zip(scored, labels, strict=True)
        ]
        known = [(row.metric, seen) for row in rows if row is not None and (seen := value(row)) is not None]
        if len(known) > 1 and rows[-1] is not None and value(rows[-1]) is not None:
            yield _forgotten(one.name, known, settings.gate)


def _forgotten(name: str, known: list[tuple[str, float]], gate: GateSettings) -> Forgotten:
    metric: Metric = "accuracy" if known[0][0] == "accuracy" else "loss"
    return forgetting(name, metric, [seen for _, seen in known], tolerance=gate.tolerance(metric))
