"""Two versions side by side: what they were taught, how, how they score, and which documents they differ on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyarrow import parquet
from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.flow import records
from orchestrator.service.origins import leaves
from orchestrator.service.records import (
    Comparison,
    DataDelta,
    FlippedExample,
    FlipRecord,
    ScoreChange,
    SettingChange,
)
from orchestrator.service.views import common
from storage import lineage
from storage.errors import StorageError
from storage.tables import Batch, Decision, EvalSet, Evaluation, Plan, Stream, StreamRevision, Version

EXAMPLES_SHOWN = 3
"""Flipped documents shown of each eval set and direction."""
EXCERPT_CHARACTERS = 160


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The evaluations of both versions on one eval set under the same settings."""

    eval_set: EvalSet
    a: Evaluation
    b: Evaluation


@dataclass(frozen=True, kw_only=True)
class Change:
    """One document under both versions: which is better, how far they are apart, and what is shown of both."""

    digest: str
    direction: str
    size: float
    a: float | str
    b: float | str


def compare(app: App, stream: str, a: int, b: int) -> Comparison:
    """Data, settings, scores and flips from version ``a`` to version ``b``.

    Raises:
        NotFound: no such stream or version.
    """
    with app.database.read() as session:
        owner = common.find_stream(session, stream)
        first, second = common.find_version(session, owner, a), common.find_version(session, owner, b)
        pairs = _pairs(session, first, second)
        rise = records.settings_of(session, owner.id).gate.flip_rise
        data = _data_delta(session, first, second)
        settings = _settings_diff(session, owner, first, second)
        scores = _scores(session, first, second)
    flips = tuple(found for pair in pairs if (found := _flips(app, pair, rise)) is not None)
    return Comparison(stream=stream, a=a, b=b, data=data, settings=settings, scores=scores, flips=flips)


def _data_delta(session: Session, a: Version, b: Version) -> DataDelta:
    behind_a, behind_b = _behind(session, a), _behind(session, b)
    counts = _documents(session, behind_a ^ behind_b)
    return DataDelta(
        only_a=tuple(sorted(behind_a - behind_b)),
        only_b=tuple(sorted(behind_b - behind_a)),
        both=tuple(sorted(behind_a & behind_b)),
        documents_only_a=sum(counts[one] for one in behind_a - behind_b),
        documents_only_b=sum(counts[one] for one in behind_b - behind_a),
    )


def _behind(session: Session, version: Version) -> set[int]:
    return {one.batch_id for one in lineage.batches_behind(session, version.id) if one.role == "trained"}


def _documents(session: Session, batches: set[int]) -> dict[int, int]:
    query = select(Batch.id, Batch.train_documents).where(Batch.id.in_(batches))
    return dict(session.execute(query).all())


def _settings_diff(session: Session, stream: Stream, a: Version, b: Version) -> tuple[SettingChange, ...]:
    first, second = _settings_of(session, stream, a), _settings_of(session, stream, b)
    keys = dict.fromkeys([*first, *second])
    return tuple(
        SettingChange(key=key, a=first.get(key), b=second.get(key)) for key in keys if first.get(key) != second.get(key)
    )


def _settings_of(session: Session, stream: Stream, version: Version) -> dict[str, Any]:
    """What a version was made with: its revision, the decision's strategy, and the values that the plan resolved."""
    decision = None if version.decision_id is None else session.get(Decision, version.decision_id)
    if decision is None:
        return {"strategy.name": version.strategy, "model": version.facts.get("source", _first_model(session, stream))}
    revision = session.get_one(StreamRevision, decision.revision_id)
    plan = session.scalar(select(Plan).where(Plan.decision_id == decision.id))
    values = {} if plan is None else plan.spec.get("values", {})
    resolved = {f"plan.{key}": one.get("value") for key, one in values.items()}
    strategy = {**decision.settings, "name": version.strategy}
    return dict(leaves({**revision.settings, "strategy": strategy})) | resolved


def _first_model(session: Session, stream: Stream) -> Any:
    query = select(StreamRevision).where(StreamRevision.stream_id == stream.id).order_by(StreamRevision.number).limit(1)
    return session.scalars(query).one().settings["model"]


def _newest(session: Session, version: Version) -> dict[str, tuple[Evaluation, EvalSet]]:
    query = (
        select(Evaluation, EvalSet)
        .join(EvalSet, EvalSet.id == Evaluation.eval_set_id)
        .where(Evaluation.version_id == version.id)
        .order_by(Evaluation.id)
    )
    return {eval_set.name: (one, eval_set) for one, eval_set in session.execute(query)}


def _scores(session: Session, a: Version, b: Version) -> tuple[ScoreChange, ...]:
    first, second = _newest(session, a), _newest(session, b)
    return tuple(_score(name, first.get(name), second.get(name)) for name in dict.fromkeys([*first, *second]))


def _score(name: str, a: tuple[Evaluation, EvalSet] | None, b: tuple[Evaluation, EvalSet] | None) -> ScoreChange:
    either = a or b
    assert either is not None
    values = None if a is None else a[0].value, None if b is None else b[0].value
    change = None if values[0] is None or values[1] is None else values[1] - values[0]
    return ScoreChange(eval_set=name, metric=either[0].metric, a=values[0], b=values[1], change=change)


def _pairs(session: Session, a: Version, b: Version) -> list[Pair]:
    first, second = _newest(session, a), _newest(session, b)
    return [
        Pair(eval_set=eval_set, a=one, b=second[name][0])
        for name, (one, eval_set) in first.items()
        if name in second
        and one.eval_set_hash == second[name][0].eval_set_hash
        and one.settings_hash == second[name][0].settings_hash
    ]


def _flips(app: App, pair: Pair, rise: float) -> FlipRecord | None:
    """Documents that changed sides; None where the per-example results have been collected."""
    try:
        before, after = _results(app, pair.a), _results(app, pair.b)
    except (StorageError, FileNotFoundError):
        return None
    changes = [
        _change(digest, before[digest], after[digest], metric=pair.a.metric, rise=rise)
        for digest in before.keys() & after.keys()
    ]
    negative = [one for one in changes if one.direction == "worse"]
    positive = [one for one in changes if one.direction == "better"]
    shown = [*_largest(negative), *_largest(positive)]
    texts = _excerpts(app, pair.eval_set, {one.digest for one in shown})
    return FlipRecord(
        eval_set=pair.eval_set.name,
        metric=pair.a.metric,
        documents=len(changes),
        negative=len(negative),
        positive=len(positive),
        examples=tuple(
            FlippedExample(
                digest=one.digest, direction=one.direction, a=one.a, b=one.b, excerpt=texts.get(one.digest, "")
            )
            for one in shown
        ),
    )


def _largest(changes: Sequence[Change]) -> list[Change]:
    return sorted(changes, key=lambda one: (-one.size, one.digest))[:EXAMPLES_SHOWN]


def _change(digest: str, a: Mapping[str, Any], b: Mapping[str, Any], *, metric: str, rise: float) -> Change:
    if metric == "accuracy":
        gained = int(bool(b["correct"])) - int(bool(a["correct"]))
        direction = ("worse", "same", "better")[gained + 1]
        size = _loss_change(a["loss"], b["loss"])
        return Change(digest=digest, direction=direction, size=size, a=str(a["predicted"]), b=str(b["predicted"]))
    before, after = a["loss"] / max(1, a["tokens"]), b["loss"] / max(1, b["tokens"])
    direction = "worse" if after > before * (1 + rise) else "better" if before > after * (1 + rise) else "same"
    return Change(digest=digest, direction=direction, size=abs(after - before), a=before, b=after)


def _loss_change(a: float | None, b: float | None) -> float:
    """How far the loss moved; what one of them had no class for moved furthest."""
    if a is None or b is None:
        return 0.0 if a is b else math.inf
    return abs(b - a)


def _results(app: App, evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    path = app.store.path(evaluation.results_hash)
    with parquet.ParquetFile(path) as file:
        wanted = [
            name for name in ("digest", "tokens", "loss", "predicted", "correct") if name in file.schema_arrow.names
        ]
        rows = file.read(columns=wanted).to_pylist()
    return {row["digest"]: row for row in rows}


def _excerpts(app: App, eval_set: EvalSet, digests: set[str]) -> dict[str, str]:
    """The beginnings of documents, read some rows at a time."""
    found: dict[str, str] = {}
    try:
        with parquet.ParquetFile(app.store.path(eval_set.content_hash)) as file:
            for part in file.iter_batches(batch_size=1000):
                found |= {row["digest"]: _excerpt(row) for row in part.to_pylist() if row["digest"] in digests}
                if len(found) == len(digests):
                    break
    except (StorageError, FileNotFoundError):
        return found
    return found


def _excerpt(row: Mapping[str, Any]) -> str:
    text = row.get("text")
    if text is None:
        messages = json.loads(row.get("messages") or "[]")
        text = " → ".join(str(message.get("content", "")) for message in messages)
    flat = " ".join(str(text).split())
    return flat if len(flat) <= EXCERPT_CHARACTERS else flat[: EXCERPT_CHARACTERS - 1] + "…"
