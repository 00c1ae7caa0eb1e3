"""The train job: one run of the loop, from snapshots and a model to artifacts."""

from __future__ import annotations

import gc
import hashlib
import json
from pathlib import Path

from strategies import objective
from strategies.consolidation import consolidation_of
from strategies.contract import JobResult, JobSpec, SourceFile, TrainTemplate, TrainWork
from strategies.contract.domains import batch_of
from strategies.errors import Refused
from strategies.jobs import mixing as mixings
from strategies.jobs.leaving import leave
from strategies.jobs.preparing import Prepared, prepare_run
from strategies.jobs.runtime import Runtime, say
from strategies.jobs.state import read_cursor
from strategies.objective import objective_of
from strategies.parts import AdapterSelection
from strategies.settings.consolidation import TaskMeanConsolidation
from strategies.training.batches import Collator
from strategies.training.checkpoint import CheckpointStore
from strategies.training.halves import PlainNames
from strategies.training.loop import Loop
from strategies.training.materials import Materials


def train(spec: JobSpec, work: TrainWork, runtime: Runtime) -> JobResult:
    """Train and leave artifacts, consumed rows and facts under ``out/``."""
    _check(spec, work)
    prepared = prepare_run(spec, work, runtime)
    work = mixings.bound(work, {name: len(rows) for name, rows in prepared.rows.items()})
    loop = make_loop(spec, work, prepared, runtime)
    # What was made so far stays until the end; the collector need not look at it again in every sweep.
    gc.collect()
    gc.freeze()
    runtime.enter("training", steps=work.template.steps)
    loop.train()
    gc.unfreeze()
    return leave(spec, work, prepared, loop, runtime)


def _check(spec: JobSpec, work: TrainWork) -> None:
    template = work.template
    kind = template.objective.kind
    objective.check(kind, spec.task)
    adapts = isinstance(template.selection, AdapterSelection)
    if adapts != isinstance(template.consolidation, TaskMeanConsolidation) or (not adapts and kind == "local"):
        raise Refused("an adapter a task, its consolidation and its objective belong together; use all or none")
    names = [source.name for source in work.sources]
    missing = sorted({batch_of(source) for source in template.mixing.sources} - set(names))
    if missing or len(set(names)) != len(names):
        raise Refused(f"sources {', '.join(names)} do not cover the mixing: {', '.join(missing) or 'a name is twice'}")


def make_loop(spec: JobSpec, work: TrainWork, prepared: Prepared, runtime: Runtime) -> Loop:
    """The loop that the template describes, ready to train."""
    template, settings = work.template, work.template.training
    cursor = read_cursor(Path(work.cursor)) if work.cursor else None
    micro = min(settings.per_device_train_batch_size or settings.train_batch_size, template.mixing.batch)
    materials = Materials(
        template=template,
        task=spec.task,
        rows=prepared.rows,
        labels=prepared.labels,
        adaptation=prepared.adaptation,
    )
    store = CheckpointStore(
        runtime.workspace / "checkpoints",
        fingerprint=fingerprint(spec, template, work.sources),
        earlier=[Path(folder) / "checkpoints" for folder in spec.resume_from],
        say=say,
    )
    return Loop(
        prepared.run,
        objective=objective_of(materials),
        parts={"consolidation": consolidation_of(materials), "selection": PlainNames()},
        mixing=mixings.sampler(spec, work, prepared.rows, cursor, packed=prepared.packing.passed),
        collate=Collator(prepared.rows, spec.task, pad=prepared.loaded.tokenizer.pad_token_id, micro=micro),
        schedule=template.schedule,
        settings=settings,
        steps=template.steps,
        store=store,
        watch=runtime,
    )


def fingerprint(spec: JobSpec, template: TrainTemplate, sources: tuple[SourceFile, ...]) -> str:
    """Names what is trained, so that a checkpoint of anything else is not continued; file paths do not matter."""
    # How often checkpoints are written and how many rows go through at once do not change what is trained.
    settings = template.model_dump(mode="json")
    for name in ("save_seconds", "save_steps", "per_device_train_batch_size", "per_device_eval_batch_size"):
        settings["training"].pop(name)
    parts = [spec.task, spec.seed, spec.model.labels, settings, sorted((file.name, file.sha256) for file in sources)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
