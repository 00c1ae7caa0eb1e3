"""The evaluate job: scores of one model on eval sets, with a result for each example."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from strategies.inference.encoding import IGNORED, Encoder, Example
from strategies.inference.load import Loaded, load
from strategies.inference.precision import Precision
from strategies.inference.score import Scorer, windows
from strategies.jobs.facts import common
from strategies.jobs.measure import class_losses
from strategies.jobs.runtime import Runtime
from strategies.training.data import Documents, eval_side, messages_of

Columns = dict[str, Any]
Metric = Literal["accuracy", "loss"]
Parts = dict[str, tuple[Metric, float | None, float | None]]
"""Eval set -> metric, and the value on each of two parts of its ``select`` documents."""


def evaluate(spec: JobSpec, work: EvaluateWork, runtime: Runtime) -> JobResult:
    """One score an eval set; those without anything to score are named in the fact ``unscored``."""
    loaded, precision, encoder, scorer = _opened(spec, work, runtime)
    scores, unscored = [], []
    for file in work.sets:
        documents = eval_side(file, spec.task)
        if not len(documents):
            unscored.append(file.name)
            continue
        runtime.enter(f"evaluating {file.name}", step=0, steps=len(documents))
        columns = _columns(documents, spec=spec, work=work, encoder=encoder, scorer=scorer, labels=loaded.labels)
        value = _value(columns, _metric(columns), np.ones(len(documents), np.bool_))
        if value is None:
            unscored.append(file.name)
        else:
            scores.append(_score(file, documents, columns, runtime.directory, value=value))
    _unchanged(loaded)
    facts = {**common(spec, precision), "unscored": unscored}
    return JobResult(kind="evaluate", scores=tuple(scores), labels=loaded.labels, facts=facts)


def selected(
    spec: JobSpec, work: EvaluateWork, runtime: Runtime, *, within: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[Metric, float | None]]:
    """Metric and value of each eval set by name, on its rows of half ``select`` alone; leaves no files.

    ``within`` names classes by eval set: argmax is taken among those alone, as the gate judges older sets.
    """
    loaded, _, encoder, scorer = _opened(spec, work, runtime)
    found: dict[str, tuple[Metric, float | None]] = {}
    for file in work.sets:
        documents = eval_side(file, spec.task, half="select")
        runtime.enter(f"scoring {file.name}", step=0, steps=len(documents))
        columns = _columns_within(documents, spec, work, encoder, scorer, loaded, within.get(file.name, ()))
        found[file.name] = (_metric(columns), _value(columns, _metric(columns), np.ones(len(documents), np.bool_)))
    _unchanged(loaded)
    return found


def selected_parts(
    spec: JobSpec,
    work: EvaluateWork,
    runtime: Runtime,
    *,
    documents: int,
    within: Mapping[str, tuple[str, ...]],
) -> Parts:
    """As :func:`selected`, for at most ``documents`` of each set, which every other document parts in two."""
    loaded, _, encoder, scorer = _opened(spec, work, runtime)
    found: Parts = {}
    for file in work.sets:
        chosen = eval_side(file, spec.task, half="select").first(documents)
        runtime.enter(f"scoring {file.name}", step=0, steps=len(chosen))
        columns = _columns_within(chosen, spec, work, encoder, scorer, loaded, within.get(file.name, ()))
        even = np.arange(len(chosen)) % 2 == 0
        metric = _metric(columns)
        found[file.name] = (metric, _value(columns, metric, even), _value(columns, metric, ~even))
    _unchanged(loaded)
    return found


def _columns_within(
    documents: Documents,
    spec: JobSpec,
    work: EvaluateWork,
    encoder: Encoder,
    scorer: Scorer,
    loaded: Loaded,
    within: tuple[str, ...],
) -> Columns:
    """Argmax is taken among the classes ``within`` alone, where any are named."""
    one = work.model_copy(update={"known_labels": {"within": within} if within else {}})
    columns = _columns(documents, spec=spec, work=one, encoder=encoder, scorer=scorer, labels=loaded.labels)
    return columns | ({"correct": columns["correct_in:within"]} if "correct_in:within" in columns else {})


def _opened(spec: JobSpec, work: EvaluateWork, runtime: Runtime) -> tuple[Loaded, Precision, Encoder, Scorer]:
    runtime.enter("loading model")
    loaded = load(spec.model, spec.task, device=precisions.device_for(spec.device), seed=spec.seed)
    precision = precisions.choose(loaded.model, work.training.bf16)
    encoder = Encoder(loaded.tokenizer, work.training.max_length)
    scorer = Scorer(
        model=loaded.model,
        precision=precision,
        pad=loaded.tokenizer.pad_token_id,
        rows=work.training.per_device_eval_batch_size,
        tick=lambda done: _tick(runtime, done),
    )
    return loaded, precision, encoder, scorer


def _unchanged(loaded: Loaded) -> None:
    """Refuse scores of a bank whose adapters something wrote to while it was scored: they are of no stored version."""
    changed = loaded.model.changed() if isinstance(loaded.model, ClassBank | DomainBank) else ()
    if changed:
        raise BadState(f"adapter {changed[0]} changed while it was evaluated; its scores are refused: evaluate again")


def _tick(runtime: Runtime, done: int) -> None:
    # A long document is scored in several windows; progress counts documents.
    runtime.step = min(runtime.step + done, runtime.steps)
    runtime.check()


def _columns(
    documents: Documents,
    *,
    spec: JobSpec,
    work: EvaluateWork,
    encoder: Encoder,
    scorer: Scorer,
    labels: tuple[str, ...],
) -> Columns:
    if spec.task == "classification":
        return _classes(documents, work, encoder, scorer, labels)
    if spec.task == "sft":
        dialogues = messages_of(documents.column("messages"))
        sums, counts = scorer.losses(encoder.dialogues(dialogues))
        return {"tokens": counts, "bytes": _sizes([dialogue[-1]["content"] for dialogue in dialogues]), "loss": sums}
    texts = documents.column("text")
    sums, counts = _texts(texts, encoder, scorer)
    return {"tokens": counts, "bytes": _sizes(texts), "loss": sums}


def _texts(texts: list[str], encoder: Encoder, scorer: Scorer) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Summed loss and tokens of each text; a long one is read in several windows."""
    examples: list[Example] = []
    owners: list[int] = []
    for place, ids in enumerate(encoder.texts(texts)):
        found = windows(encoder.opening, ids, encoder.max_length)
        examples += found
        owners += [place] * len(found)
    sums, counts = scorer.losses(examples)
    totals = np.bincount(owners, sums, len(texts)).astype(np.float64)
    return totals, np.bincount(owners, counts, len(texts)).astype(np.int64)


def _classes(
    documents: Documents, work: EvaluateWork, encoder: Encoder, scorer: Scorer, labels: tuple[str, ...]
) -> Columns:
    """A label that the model does not know counts as wrong and has no loss."""
    texts, wanted = documents.column("text"), documents.column("label")
    logits = scorer.logits(encoder.classified(texts), len(labels))
    place = {label: index for index, label in enumerate(labels)}
    truth = np.array([place.get(label, IGNORED) for label in wanted])
    columns: Columns = {
        "tokens": np.ones(len(texts), np.int64),
        "bytes": _sizes(texts),
        "loss": class_losses(logits, truth),
        "label": wanted,
        "predicted": [labels[index] for index in logits.argmax(1)],
        "correct": logits.argmax(1) == truth,
    }
    for version, known in work.known_labels.items():
        inside = [place[label] for label in known if label in place]
        columns[f"correct_in:{version}"] = _correct_in(logits, truth, inside)
    return columns


def _correct_in(logits: NDArray[np.float64], truth: NDArray[np.int64], inside: list[int]) -> NDArray[np.bool_]:
    if not inside:
        return np.zeros(len(truth), np.bool_)
    found: NDArray[np.bool_] = np.array(inside)[logits[:, inside].argmax(1)] == truth
    return found


def _sizes(texts: list[str]) -> NDArray[np.int64]:
    return np.array([len(text.encode()) for text in texts], dtype=np.int64)


def _metric(columns: Columns) -> Metric:
    return "accuracy" if "correct" in columns else "loss"


def _score(file: EvalFile, documents: Documents, columns: Columns, directory: Path, *, value: float) -> Score:
    if not math.isfinite(value):
        raise Diverged(f"the model's loss on eval set {file.name} is not finite; it cannot be judged")
    halves = np.array(documents.column("half"))
    metric = _metric(columns)
    results = f"out/eval-{file.id}.parquet"
    (directory / "out").mkdir(exist_ok=True)
    table = pa.table({"digest": documents.digests, "half": halves, **{k: _arrow(v) for k, v in columns.items()}})
    pq.write_table(table, directory / results, compression="zstd", row_group_size=10_000)
    return Score(
        eval_set=file.id,
        name=file.name,
        sha256=file.sha256,
        metric=metric,
        value=value,
        value_select=_value(columns, metric, halves == "select"),
        value_judge=_value(columns, metric, halves == "judge"),
        examples=len(documents),
        tokens=int(columns["tokens"].sum()),
        bytes=int(columns["bytes"].sum()),
        results=results,
        details=_details(columns, metric, halves == "select"),
    )


def _arrow(values: Any) -> Any:
    return pa.array(values, from_pandas=True)


def _value(columns: Columns, metric: str, chosen: NDArray[np.bool_]) -> float | None:
    """Share of right answers, or nats a token over all tokens; None where there is nothing to divide by."""
    if metric == "accuracy":
        return float(columns["correct"][chosen].mean()) if chosen.any() else None
    tokens = int(columns["tokens"][chosen].sum())
    return float(columns["loss"][chosen].sum() / tokens) if tokens else None


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
