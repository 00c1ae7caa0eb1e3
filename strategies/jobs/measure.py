"""The measure job: how large each source is, how hard it is for the live model, and what the model is made of."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from strategies.agent.rows import Ids, similarities
from strategies.contract import ClassFacts, JobResult, JobSpec, Measured, MeasureWork, SourceFile
from strategies.contract.domains import batch_of, part
from strategies.errors import Refused
from strategies.inference import precision as precisions
from strategies.inference.bank import DomainBank
from strategies.inference.encoding import IGNORED, Encoder
from strategies.inference.load import Loaded, load
from strategies.inference.precision import Precision
from strategies.inference.sample import sample
from strategies.inference.score import Scorer, windows
from strategies.jobs.dividing import Classes, classes_by, parts, texts_of
from strategies.jobs.facts import common
from strategies.jobs.runtime import Runtime
from strategies.settings.agent import ProxySettings
from strategies.training.data import Documents, messages_of, training_side
from strategies.training.packing import probe
from strategies.training.rows import Rows, encode_rows
from strategies.training.table import parameter_table


def measure(spec: JobSpec, work: MeasureWork, runtime: Runtime) -> JobResult:
    """Documents, tokens, rows and loss of each source; the model's parameters; texts sampled from it if asked for."""
    runtime.enter("loading model")
    loaded = load(spec.model, spec.task, device=precisions.device_for(spec.device), seed=spec.seed)
    precision = precisions.choose(loaded.model, work.training.bf16)
    packing = can_pack(spec, loaded, precision, wanted=work.training.packing)
    space = _space(spec, work, runtime)
    classes = classes_by(work.divide, space and str(runtime.directory / space), spec.task)
    measured = []
    counts = Counts({source.name for source in work.sources if source.role == "new"})
    for index, source in enumerate(work.sources):
        runtime.enter(f"measuring {source.name}", step=index, steps=len(work.sources))
        found = _one(source, spec, work, loaded, precision, counts, packing=packing["passed"], runtime=runtime)
        held = _classes(source, spec, work, loaded, counts, classes, packing=packing["passed"], runtime=runtime)
        measured.append(found.model_copy(update={"classes": held}))
    return JobResult(
        kind="measure",
        artifacts={} if space is None else {"state/domains": space},
        measured=counts.likened(measured),
        labels=loaded.labels,
        samples=_samples(spec, work, loaded, precision, runtime) if work.sample else None,
        parameters=parameter_table(loaded.model),
        facts={**common(spec, precision), "packing": packing},
    )


class Counts:
    """How often sources, and their parts of each class, have each token; ``new`` are the sources trained for."""

    def __init__(self, new: Collection[str]) -> None:
        self._new = new
        self._sources: dict[str, Ids] = {}
        self._parts: dict[str, Ids] = {}

    def add(self, name: str, rows: Rows) -> None:
        """Count a source, or a part named as :func:`strategies.contract.domains.part`."""
        (self._sources if batch_of(name) == name else self._parts)[name] = np.bincount(rows.ids)

    def likened(self, measured: Sequence[Measured]) -> tuple[Measured, ...]:
        """The same with how alike sources and classes are to new ones, as an agent's proxies measure it."""
        near = {**self._near(self._sources), **self._near(self._parts)}
        return tuple(
            one.model_copy(
                update={
                    "similarity": near[one.name],
                    "classes": tuple(
                        found.model_copy(update={"similarity": near[part(one.name, found.name)]})
                        for found in one.classes
                    ),
                }
            )
            for one in measured
        )

    def _near(self, counts: Mapping[str, Ids]) -> dict[str, float]:
        size = max(map(len, counts.values()), default=0)
        table = np.zeros((len(counts), size), np.int64)
        for row, one in zip(table, counts.values(), strict=True):
            row[: len(one)] = one
        found = similarities(table, [batch_of(name) in self._new for name in counts], ProxySettings().vocabulary)
        return dict(zip(counts, found, strict=True))


def _space(spec: JobSpec, work: MeasureWork, runtime: Runtime) -> str | None:
    """Where the clusters lie under the job's directory: those of the parent, or found in all documents."""
    if work.divide != "clusters":
        return None
    from strategies.fitting.domains import find_domains

    place = runtime.directory / "out" / "space"
    if work.space is not None:
        shutil.copytree(work.space, place, dirs_exist_ok=True)
        return "out/space"
    runtime.enter("finding domains")
    documents = [training_side(source, spec.task) for source in work.sources]
    digested = sorted(
        (digest, text) for one in documents for digest, text in zip(one.digests, texts_of(one, spec.task), strict=True)
    )
    find_domains([text for _, text in digested], work.clusters).save(place)
    return "out/space"


def _classes(
    source: SourceFile,
    spec: JobSpec,
    work: MeasureWork,
    loaded: Loaded,
    counts: Counts,
    classes: Classes | None,
    *,
    packing: object,
    runtime: Runtime,
) -> tuple[ClassFacts, ...]:
    """How much the source holds of every class."""
    if classes is None:
        return ()
    encoder = Encoder(loaded.tokenizer, work.training.max_length)
    found = parts("", training_side(source, spec.task), classes)
    rows = {
        name.removeprefix("/"): encode_rows(
            one, encoder, spec.task, packing=bool(packing), labels=loaded.labels, tick=runtime.check
        )
        for name, one in found.items()
    }
    for name, one in rows.items():
        counts.add(part(source.name, name), one)
    return tuple(
        ClassFacts(name=name, documents=len(found[f"/{name}"]), tokens=one.tokens, rows=len(one))
        for name, one in rows.items()
    )


def can_pack(spec: JobSpec, loaded: Loaded, precision: Precision, *, wanted: bool) -> dict[str, object]:
    """Whether examples are packed: asked for, sft, and proven not to leak."""
    if not wanted or spec.task != "sft":
        return {"passed": False, "reason": "not asked for" if not wanted else f"{spec.task} has no examples to pack"}
    vocabulary = int(loaded.model.config.get_text_config().vocab_size)
    model = loaded.model.model if isinstance(loaded.model, DomainBank) else loaded.model
    return probe(model, vocabulary=vocabulary, autocast=precision.autocast, bf16=precision.bf16)


def _one(
    source: SourceFile,
    spec: JobSpec,
    work: MeasureWork,
    loaded: Loaded,
    precision: Precision,
    counts: Counts,
    *,
    packing: object,
    runtime: Runtime,
) -> Measured:
    documents = training_side(source, spec.task)
    encoder = Encoder(loaded.tokenizer, work.training.max_length)
    rows = encode_rows(documents, encoder, spec.task, packing=bool(packing), labels=loaded.labels, tick=runtime.check)
    counts.add(source.name, rows)
    scorer = Scorer(
        model=loaded.model,
        precision=precision,
        pad=loaded.tokenizer.pad_token_id,
        rows=work.training.per_device_eval_batch_size,
        tick=lambda done: runtime.check(),
    )
    return Measured(
        name=source.name,
        batch=source.batch,
        documents=len(documents),
        tokens=rows.tokens,
        rows=len(rows),
        loss=_loss(documents.first(work.documents), spec, work, loaded, scorer),
    )


def _loss(documents: Documents, spec: JobSpec, work: MeasureWork, loaded: Loaded, scorer: Scorer) -> float | None:
    """Mean loss a token (of texts in windows, or of answers), or a document (of classes that the model knows).

    Of the first documents by digest, until ``work.tokens`` tokens went through the model.
    """
    if spec.task == "classification":
        return _class_loss(documents, work, loaded, scorer)
    encoder = Encoder(loaded.tokenizer, work.window if spec.task == "causal-lm" else work.training.max_length)
    if spec.task == "sft":
        examples = encoder.dialogues(messages_of(documents.column("messages")))
    else:
        opening = encoder.opening
        texts = encoder.texts(documents.column("text"))
        examples = [window for ids in texts for window in windows(opening, ids, work.window)]
    sums, counts = scorer.losses(_bounded(examples, [len(ids) for ids, _ in examples], work.tokens))
    return float(sums.sum() / counts.sum()) if counts.sum() else None


def _class_loss(documents: Documents, work: MeasureWork, loaded: Loaded, scorer: Scorer) -> float | None:
    place = {label: index for index, label in enumerate(loaded.labels)}
    known = [(text, place[label]) for text, label in zip(*map(documents.column, ("text", "label")), strict=True)
             if label in place]  # fmt: skip
    if not known:
        return None
    encoder = Encoder(loaded.tokenizer, work.training.max_length)
    texts = encoder.classified([text for text, _ in known])
    texts = _bounded(texts, list(map(len, texts)), work.tokens)
    logits = scorer.logits(texts, len(loaded.labels))
    return float(np.mean(class_losses(logits, np.array([index for _, index in known[: len(texts)]]))))


def _bounded(examples: list[Any], lengths: list[int], tokens: int) -> list[Any]:
    """The first examples, up to the one that brings their tokens to ``tokens``."""
    before = itertools.accumulate(lengths, initial=0)
    return [example for example, total in zip(examples, before, strict=False) if total < tokens]


def class_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy of each row in nats; NaN where the label is unknown (-100)."""
    top = logits.max(1)
    total = top + np.log(np.exp(logits - top[:, None]).sum(1))
    chosen = logits[np.arange(len(logits)), np.maximum(labels, 0)]
    return np.where(labels == IGNORED, np.nan, total - chosen)


def _samples(spec: JobSpec, work: MeasureWork, loaded: Loaded, precision: Precision, runtime: Runtime) -> str:
    if spec.task != "causal-lm" or work.sample is None:
        raise Refused(f"documents can be sampled from a causal-lm model only, not for {spec.task}; give an anchor")
    runtime.enter("sampling")
    path = runtime.directory / "out" / "samples.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as file:
        for text in sample(
            loaded.model, loaded.tokenizer, work.sample, precision=precision, rows=16, tick=runtime.check
        ):
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    return "out/samples.jsonl"
