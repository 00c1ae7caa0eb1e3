"""The measure job: how large each source is, how hard it is for the live model, and what the model is made of."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from strategies.agent.rows import TokenCounts, similarities, token_counts
from strategies.contract import ClassFacts, JobResult, JobSpec, Measured, MeasureWork, SourceFile
from strategies.contract.domains import batch_of, part
from strategies.errors import Refused
from strategies.inference import precision as precisions
from strategies.inference.bank import DomainBank
from strategies.inference.encoding import Encoder, Example, with_targets
from strategies.inference.load import Loaded, load
from strategies.inference.precision import Precision
from strategies.inference.sample import sample
from strategies.inference.score import Scorer
from strategies.jobs.dividing import Classes, classes_by, divide, texts_of
from strategies.jobs.facts import common
from strategies.jobs.runtime import Runtime
from strategies.settings.agent import ProxySettings
from strategies.training.data import Documents, training_side
from strategies.training.packing import Packing, probe
from strategies.training.rows import Encoded, Rows, encode, lay_out
from strategies.training.table import parameter_table


def measure(spec: JobSpec, work: MeasureWork, runtime: Runtime) -> JobResult:
    """Documents, tokens, rows and loss of each source; the model's parameters; texts sampled from it if asked for."""
    runtime.enter("loading model")
    loaded = load(spec.model, spec.task, device=precisions.device_for(spec.device), seed=spec.seed)
    precision = precisions.choose(loaded.model, work.training.bf16)
    packing = can_pack(spec, loaded, precision, wanted=work.training.packing)
    space = _space(spec, work, runtime)
    bench = _Bench(
        spec=spec,
        work=work,
        runtime=runtime,
        loaded=loaded,
        precision=precision,
        packing=packing,
        classes=classes_by(work.divide, space and str(runtime.directory / space), spec.task),
        counts=Counts({source.name for source in work.sources if source.role == "new"}),
    )
    measured = []
    for number, source in enumerate(work.sources, start=1):
        runtime.enter(f"measuring {source.name}", step=number, steps=len(work.sources))
        measured.append(bench.measured(source))
    return JobResult(
        kind="measure",
        artifacts={} if space is None else {"state/domains": space},
        measured=bench.counts.likened(measured),
        labels=loaded.labels,
        samples=_samples(spec, work, loaded, precision, runtime) if work.sample else None,
        parameters=parameter_table(loaded.model),
        facts={**common(spec, precision), "packing": packing.facts()},
    )


class Counts:
    """How often sources, and their parts of each class, have each token; ``new`` are the sources trained for."""

    def __init__(self, new: Collection[str]) -> None:
        self._new = new
        self._sources: dict[str, TokenCounts] = {}
        self._parts: dict[str, TokenCounts] = {}

    def add(self, name: str, rows: Rows) -> None:
        """Count a source, or a part named as :func:`strategies.contract.domains.part`."""
        (self._sources if batch_of(name) == name else self._parts)[name] = token_counts(rows.ids)

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

    def _near(self, counts: Mapping[str, TokenCounts]) -> dict[str, float]:
        new = [batch_of(name) in self._new for name in counts]
        found = similarities(list(counts.values()), new, ProxySettings().vocabulary)
        return dict(zip(counts, found, strict=True))


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """The job with its model opened, and the tokens that were counted so far; one source is in memory at a time."""

    spec: JobSpec
    work: MeasureWork
    runtime: Runtime
    loaded: Loaded
    precision: Precision
    packing: Packing
    classes: Classes | None
    counts: Counts

    def measured(self, source: SourceFile) -> Measured:
        """What is known of one source, all in all and by class."""
        documents = training_side(source, self.spec.task)
        encoder = Encoder(self.loaded.tokenizer, self.work.training.max_length)
        encoded = encode(documents, encoder, self.spec.task, labels=self.loaded.labels, tick=self.runtime.check)
        rows = self._counted(source.name, encoded)
        return Measured(
            name=source.name,
            batch=source.batch,
            documents=len(documents),
            tokens=rows.tokens,
            rows=len(rows),
            loss=self._loss(documents.first(self.work.documents), tokens=scored_tokens(self.work, source)),
            classes=self._classes(source, documents, encoded),
        )

    def _classes(self, source: SourceFile, documents: Documents, encoded: Encoded) -> tuple[ClassFacts, ...]:
        """How much the source holds of every class."""
        if self.classes is None:
            return ()
        found = {
            name: (len(own), self._counted(part(source.name, name), own))
            for name, own in divide(encoded, self.classes(documents)).items()
        }
        return tuple(
            ClassFacts(name=name, documents=count, tokens=rows.tokens, rows=len(rows))
            for name, (count, rows) in found.items()
        )

    def _counted(self, name: str, encoded: Encoded) -> Rows:
        rows = lay_out(encoded, self.spec.task, self.work.training.max_length, packing=self.packing.passed)
        self.counts.add(name, rows)
        return rows

    def _loss(self, documents: Documents, *, tokens: int) -> float | None:
        """Mean loss a token (of texts in windows, or of answers), or a document (of classes that the model knows).

        Of the first documents by digest, until ``tokens`` tokens went through the model.
        """
        task, work, labels = self.spec.task, self.work, self.loaded.labels
        encoder = Encoder(self.loaded.tokenizer, work.window if task == "causal-lm" else work.training.max_length)
        examples = _bounded(with_targets(encoder.examples(documents, task, labels)), tokens)
        scorer = Scorer(
            model=self.loaded.model,
            precision=self.precision,
            pad=self.loaded.tokenizer.pad_token_id,
            rows=work.training.per_device_eval_batch_size,
            tick=lambda done: self.runtime.check(),
        )
        return scorer.mean_loss(examples, classes=len(labels)) if examples else None


def scored_tokens(work: MeasureWork, source: SourceFile) -> int:
    """How many tokens of a source go through the model."""
    sharing = [one.batch for one in work.sources if one.role == "old" and one.batch != work.compared_with]
    if source.batch not in sharing:
        return work.tokens
    return min(work.tokens, max(work.least, work.tokens // len(sharing)))


def _bounded(examples: Sequence[Example], tokens: int) -> list[Example]:
    """The first examples, up to the one that brings their tokens to ``tokens``."""
    before = itertools.accumulate((len(ids) for ids, _ in examples), initial=0)
    return [example for example, total in zip(examples, before, strict=False) if total < tokens]


def _space(spec: JobSpec, work: MeasureWork, runtime: Runtime) -> str | None:
    """Where the clusters lie under the job's directory: those of the parent, if these were found with the same
    settings, or others in the first documents of all.
    """
    if work.divide != "clusters":
        return None
    from strategies.fitting.domains import Domains, find_domains

    place = runtime.directory / "out" / "space"
    if work.space is not None and Domains.load(Path(work.space)).space.settings == work.clusters:
        shutil.copytree(work.space, place, dirs_exist_ok=True)
        return "out/space"
    runtime.enter("finding domains")
    first: list[tuple[str, str]] = []
    for source in work.sources:
        documents = training_side(source, spec.task).first(work.clusters.documents)
        first += zip(documents.digests, texts_of(documents, spec.task), strict=True)
        first = sorted(first)[: work.clusters.documents]
    find_domains([text for _, text in first], work.clusters).save(place)
    return "out/space"


def can_pack(spec: JobSpec, loaded: Loaded, precision: Precision, *, wanted: bool) -> Packing:
    """Whether examples are packed: asked for, sft, and proven not to leak."""
    if not wanted:
        return Packing(passed=False, reason="not asked for")
    if spec.task != "sft":
        return Packing(passed=False, reason=f"{spec.task} has no examples to pack")
    vocabulary = int(loaded.model.config.get_text_config().vocab_size)
    model = loaded.model.model if isinstance(loaded.model, DomainBank) else loaded.model
    return probe(model, vocabulary=vocabulary, autocast=precision.autocast, bf16=precision.bf16)


def _samples(spec: JobSpec, work: MeasureWork, loaded: Loaded, precision: Precision, runtime: Runtime) -> str:
    if spec.task != "causal-lm" or work.sample is None:
        raise Refused(f"documents can be sampled from a causal-lm model only, not for {spec.task}; give an anchor")
    runtime.enter("sampling")
    path = runtime.directory / "out" / "samples.jsonl"
    path.parent.mkdir(exist_ok=True)
    texts = sample(loaded.model, loaded.tokenizer, work.sample, precision=precision, rows=16, tick=runtime.check)
    with path.open("w") as file:
        for text in texts:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
    if not path.stat().st_size:
        raise Refused("every text sampled from the model is empty; register a stream with an anchor")
    return "out/samples.jsonl"
