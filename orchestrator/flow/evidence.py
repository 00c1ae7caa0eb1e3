"""What the gate looks at, read from the per-example results of the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.flow import evaluation, records
from orchestrator.policies.evidence import Comparison, Evidence, SetEvidence, Values
from storage.tables import EvalSet, Evaluation, Stream, Version


@dataclass(frozen=True, kw_only=True)
class Results:
    """Per-document results of one version on one eval set's ``judge`` half, in the order of digests."""

    digests: tuple[str, ...]
    columns: dict[str, Any]


def gather(app: App, session: Session, *, stream: Stream, candidate: Version, live: Version) -> Evidence:
    """The candidate beside the live version, and on older sets beside the best that was ever live."""
    settings = records.settings_of(session, stream.id)
    sets = evaluation.judged_sets(session, candidate)
    new, old = _by_role(session, candidate, live, sets)
    pairing = _Pairing(app, session, stream, candidate, live, evaluation.settings_hash(settings))
    best = [one for one in evaluation.good_versions(session, stream.id) if one.id != live.id]
    return Evidence(
        candidate=f"{stream.name}/{candidate.number}",
        live=f"{stream.name}/{live.number}",
        sets=(
            *(pairing.compare(one, is_new=True, best=best) for one in new),
            *(pairing.compare(one, is_new=False, best=best) for one in old),
        ),
    )


def _by_role(
    session: Session, candidate: Version, live: Version, sets: Sequence[EvalSet]
) -> tuple[list[EvalSet], list[EvalSet]]:
    """What a candidate must be better on, and what it must not have forgotten.

    A merge is no better for being another model: where the live version has seen all that is behind it, it must be
    better on all data taken together and forget none of it. A root of the lineage stands for no data.
    """
    own = set(evaluation.own_batches(session, candidate))
    if candidate.decision_id is None:
        unseen = own - set(evaluation.data_behind(session, live))
        if own and not any(one.batch_id in unseen for one in sets):
            return [one for one in sets if one.kind in ("batch", "pool")], list(sets)
        own = unseen
    return [one for one in sets if one.batch_id in own], [one for one in sets if one.batch_id not in own]


def results_of(app: App, evaluation_row: Evaluation, *, half: str | None = "judge") -> Results:
    """Per-document results, sorted by digest; ``half`` None: all of them."""
    table = pq.ParquetFile(app.store.path(evaluation_row.results_hash)).read()
    rows = sorted(
        (row for row in table.to_pylist() if half is None or row["half"] == half), key=lambda row: str(row["digest"])
    )
    columns = {name: [row[name] for row in rows] for name in table.column_names}
    return Results(digests=tuple(columns["digest"]), columns=columns)


class _Pairing:
    """Puts two versions' results on one eval set side by side."""

    def __init__(
        self, app: App, session: Session, stream: Stream, candidate: Version, live: Version, settings_hash: str
    ) -> None:
        self._app = app
        self._session = session
        self._stream = stream
        self._candidate = candidate
        self._live = live
        self._settings_hash = settings_hash

    def compare(self, one: EvalSet, *, is_new: bool, best: Sequence[Version]) -> SetEvidence:
        """Evidence of one eval set; new data is compared with the live version alone."""
        scored = self._evaluation(self._candidate, one)
        assert scored is not None
        mine = results_of(self._app, scored)
        rival = None if is_new else self._best(one, best)
        unit = "tokens" if self._same_tokenizer([self._live, *([rival] if rival else [])]) else "bytes"
        return SetEvidence(
            name=one.name,
            kind=one.kind,
            role="new" if is_new else "old",
            metric="accuracy" if scored.metric == "accuracy" else "loss",
            digests=mine.digests,
            weights=_weights(mine, scored.metric, unit),
            live=self._comparison(one, scored, mine, self._live, restricted=not is_new),
            best=None if rival is None else self._comparison(one, scored, mine, rival, restricted=True),
        )

    def _comparison(
        self, one: EvalSet, scored: Evaluation, mine: Results, other: Version, *, restricted: bool
    ) -> Comparison:
        theirs_row = self._evaluation(other, one)
        assert theirs_row is not None
        theirs = results_of(self._app, theirs_row)
        column, plain = _value_columns(mine, scored.metric, records.known_labels(self._session, other), restricted)
        return Comparison(
            version=f"{self._stream.name}/{other.number}",
            candidate=_array(mine.columns[column]),
            reference=_array(theirs.columns[plain]),
            unrestricted=(scored.value_judge or 0.0, theirs_row.value_judge or 0.0) if column != plain else None,
        )

    def _evaluation(self, version: Version, one: EvalSet) -> Evaluation | None:
        return records.evaluations_of(self._session, version.id, self._settings_hash).get(one.content_hash)

    def _best(self, one: EvalSet, versions: Sequence[Version]) -> Version | None:
        """Of the versions that were measured on this set, the one that scores best on its ``judge`` half."""
        scored = [(row, version) for version in versions if (row := self._evaluation(version, one)) is not None]
        scored = [pair for pair in scored if pair[0].value_judge is not None]
        if not scored:
            return None
        sign = 1 if scored[0][0].metric == "loss" else -1
        return min(scored, key=lambda pair: sign * (pair[0].value_judge or 0.0))[1]

    def _same_tokenizer(self, others: Sequence[Version]) -> bool:
        mine = tokenizer_of(self._session, self._candidate)
        return all(tokenizer_of(self._session, other) == mine for other in others)


def tokenizer_of(session: Session, version: Version) -> str | None:
    """The hash of the tokenizer that a version reads with: its root's."""
    return records.root_of(session, version).facts.get("tokenizer")


def _weights(mine: Results, metric: str, unit: str) -> Values:
    if metric == "accuracy":
        return np.ones(len(mine.digests))
    return _array(mine.columns[unit])


def _value_columns(mine: Results, metric: str, known: list[str], restricted: bool) -> tuple[str, str]:
    """The candidate's and the other's column: within the classes that the other knew, where that was measured."""
    if metric == "loss":
        return "loss", "loss"
    within = f"correct_in:{evaluation.labels_name(known)}"
    return (within if restricted and within in mine.columns else "correct"), "correct"


def _array(values: Sequence[Any]) -> Values:
    return np.asarray(values, dtype=np.float64)
