"""The evaluate job: scores of one model on eval sets, with a result for each example."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from strategies.contract import EvalFile, EvaluateWork, JobResult, JobSpec, Score
from strategies.errors import BadState, Diverged
from strategies.inference import precision as precisions
from strategies.inference.bank import ClassBank, DomainBank
from strategies.inference.encoding import Encoder, messages_of
from strategies.inference.load import Loaded, load
from strategies.inference.precision import Precision
from strategies.inference.score import Scorer, class_losses
from strategies.jobs.facts import common
from strategies.jobs.runtime import Runtime
from strategies.scores import Metric
from strategies.training.data import Documents, eval_side

Columns = dict[str, Any]
Flags = NDArray[np.bool_]
Parts = dict[str, tuple[Metric, float | None, float | None]]
"""Eval set -> metric, and the value on each of two parts of its ``select`` documents."""


def evaluate(spec: JobSpec, work: EvaluateWork, runtime: Runtime) -> JobResult:
    """One score an eval set; those without anything to score are named in the fact ``unscored``."""
    opened = _open(spec, work, runtime)
    scores, unscored = [], []
    for one in _scored(opened):
        value = one.value()
        if value is None:
            unscored.append(one.file.name)
        else:
            scores.append(_score(one, runtime.directory, value=value))
    facts = {**common(spec, opened.precision), "unscored": unscored}
    return JobResult(kind="evaluate", scores=tuple(scores), labels=opened.loaded.labels, facts=facts)


def selected(
    spec: JobSpec, work: EvaluateWork, runtime: Runtime, *, within: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[Metric, float | None]]:
    """Metric and value of each eval set by name, on its rows of half ``select`` alone; leaves no files.

    ``within`` names classes by eval set: argmax is taken among those alone, as the gate judges older sets.
    """
    found = _scored(_open(spec, work, runtime), half="select", within=within)
    return {one.file.name: (one.metric, one.value()) for one in found}


def selected_parts(
    spec: JobSpec,
    work: EvaluateWork,
    runtime: Runtime,
    *,
    documents: int,
    within: Mapping[str, tuple[str, ...]],
) -> Parts:
    """As :func:`selected`, for at most ``documents`` of each set, which every other document parts in two."""
    parts: Parts = {}
    for one in _scored(_open(spec, work, runtime), half="select", first=documents, within=within):
        even = np.arange(len(one.documents)) % 2 == 0
        parts[one.file.name] = (one.metric, one.value(even), one.value(~even))
    return parts


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A job with its model opened."""

    spec: JobSpec
    work: EvaluateWork
    runtime: Runtime
    loaded: Loaded
    precision: Precision
    encoder: Encoder
    scorer: Scorer


@dataclass(frozen=True, kw_only=True)
class _ScoredSet:
    """An eval set's documents and what the model makes of each."""

    file: EvalFile
    documents: Documents
    columns: Columns

    @property
    def metric(self) -> Metric:
        return "accuracy" if "correct" in self.columns else "loss"

    def value(self, chosen: Flags | None = None) -> float | None:
        """Share of right answers, or nats a token over all tokens; None where there is nothing to divide by."""
        chosen = np.ones(len(self.documents), np.bool_) if chosen is None else chosen
        if self.metric == "accuracy":
            return float(self.columns["correct"][chosen].mean()) if chosen.any() else None
        tokens = int(self.columns["tokens"][chosen].sum())
        return float(self.columns["loss"][chosen].sum() / tokens) if tokens else None


def _open(spec: JobSpec, work: EvaluateWork, runtime: Runtime) -> _Opened:
    runtime.enter("loading model")
    loaded = load(spec.model, spec.task, device=precisions.device_for(spec.device), seed=spec.seed)
    precision = precisions.choose(loaded.model, work.training.bf16)
    scorer = Scorer(
        model=loaded.model,
        precision=precision,
        pad=loaded.tokenizer.pad_token_id,
        rows=work.training.per_device_eval_batch_size,
        tick=lambda done: _tick(runtime, done),
    )
    return _Opened(
        spec=spec,
        work=work,
        runtime=runtime,
        loaded=loaded,
        precision=precision,
        encoder=Encoder(loaded.tokenizer, work.training.max_length),
        scorer=scorer,
    )


def _tick(runtime: Runtime, done: int) -> None:
    # A long document is scored in several windows; progress counts documents.
    runtime.step = min(runtime.step + done, runtime.steps)
    runtime.check()


def _scored(
    opened: _Opened,
    *,
    half: Literal["select"] | None = None,
    first: int | None = None,
    within: Mapping[str, tuple[str, ...]] | None = None,
) -> Iterator[_ScoredSet]:
    """Each eval set in turn, or the ``first`` documents of one half of it.

    Raises:
        BadState: something wrote to a bank's adapters while it was scored, so that the scores are of no stored version.
    """
    for file in opened.work.sets:
        documents = eval_side(file, opened.spec.task, half=half)
        documents = documents if first is None else documents.first(first)
        opened.runtime.enter(f"scoring {file.name}", step=0, steps=len(documents))
        columns = _columns(opened, documents, (within or {}).get(file.name, ()))
        yield _ScoredSet(file=file, documents=documents, columns=columns)
    model = opened.loaded.model
    changed = model.changed() if isinstance(model, ClassBank | DomainBank) else ()
    if changed:
        raise BadState(f"adapter {changed[0]} changed while it was evaluated; its scores are refused: evaluate again")


def _columns(opened: _Opened, documents: Documents, within: tuple[str, ...]) -> Columns:
    if opened.spec.task == "classification":
        return _classes(opened, documents, within)
    if opened.spec.task == "sft":
        said = [dialogue[-1]["content"] for dialogue in messages_of(documents.column("messages"))]
    else:
        said = documents.column("text")
    sums, counts = _totals(opened, documents)
    return {"tokens": counts, "bytes": _sizes(said), "loss": sums}


def _totals(opened: _Opened, documents: Documents) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Summed loss and tokens of each document; a long text is read in several windows."""
    found = opened.encoder.examples(documents, opened.spec.task)
    sums, counts = opened.scorer.losses([example for own in found for example in own])
    owners = [place for place, own in enumerate(found) for _ in own]
    totals = np.bincount(owners, sums, len(found)).astype(np.float64)
    return totals, np.bincount(owners, counts, len(found)).astype(np.int64)


def _classes(opened: _Opened, documents: Documents, within: tuple[str, ...]) -> Columns:
    """A label that the model does not know counts as wrong and has no loss."""
    labels = opened.loaded.labels
    examples = [example for (example,) in opened.encoder.examples(documents, "classification", labels)]
    logits = opened.scorer.logits([ids for ids, _ in examples], len(labels))
    truth = np.array([target for _, (target,) in examples], dtype=np.int64)
    restricted = opened.work.known_labels.items()
    return {
        "tokens": np.ones(len(documents), np.int64),
        "bytes": _sizes(documents.column("text")),
        "loss": class_losses(logits, truth),
        "label": documents.column("label"),
        "predicted": [labels[index] for index in logits.argmax(1)],
        "correct": _correct(logits, truth, labels, among=within or labels),
        **{f"correct_in:{version}": _correct(logits, truth, labels, among=known) for version, known in restricted},
    }


def _correct(
    logits: NDArray[np.float64], truth: NDArray[np.int64], labels: tuple[str, ...], *, among: Collection[str]
) -> Flags:
    """Whether the likeliest class of those ``among`` all is the right one; never, where the model knows none."""
    chosen = frozenset(among)
    inside = [place for place, label in enumerate(labels) if label in chosen]
    if not inside:
        return np.zeros(len(truth), np.bool_)
    found: Flags = np.array(inside)[logits[:, inside].argmax(1)] == truth
    return found


def _sizes(texts: list[str]) -> NDArray[np.int64]:
    return np.array([len(text.encode()) for text in texts], dtype=np.int64)


def _score(one: _ScoredSet, directory: Path, *, value: float) -> Score:
    file, columns = one.file, one.columns
    if not math.isfinite(value):
        raise Diverged(f"the model's loss on eval set {file.name} is not finite; it cannot be judged")
    halves = np.array(one.documents.column("half"))
    results = f"out/eval-{file.id}.parquet"
    (directory / "out").mkdir(exist_ok=True)
    table = pa.table({"digest": one.documents.digests, "half": halves, **{k: _arrow(v) for k, v in columns.items()}})
    pq.write_table(table, directory / results, compression="zstd", row_group_size=10_000)
    return Score(
        eval_set=file.id,
        name=file.name,
        sha256=file.sha256,
        metric=one.metric,
        value=value,
        value_select=one.value(halves == "select"),
        value_judge=one.value(halves == "judge"),
        examples=len(one.documents),
        tokens=int(columns["tokens"].sum()),
        bytes=int(columns["bytes"].sum()),
        results=results,
        details=_details(columns, one.metric, halves == "select"),
    )


def _arrow(values: Any) -> Any:
    return pa.array(values, from_pandas=True)


def _details(columns: Columns, metric: str, selected: NDArray[np.bool_]) -> dict[str, Any]:
    if metric == "loss":
        return {"loss_per_byte": float(columns["loss"].sum() / max(1, columns["bytes"].sum()))}
    of_known = ~np.isnan(columns["loss"])
    known, chosen = columns["loss"][of_known], columns["loss"][of_known & selected]
    restricted = {name: float(values.mean()) for name, values in columns.items() if name.startswith("correct_in:")}
    return {
        "loss": float(known.mean()) if len(known) else None,
        "loss_select": float(chosen.mean()) if len(chosen) else None,
        "unknown": int(np.isnan(columns["loss"]).sum()),
        **restricted,
    }
