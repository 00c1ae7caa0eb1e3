"""The train job: one run of the loop, from snapshots and a model to artifacts."""

from __future__ import annotations

import gc
import hashlib
import json
from pathlib import Path

from strategies.consolidation import TaskMean, consolidation_for
from strategies.contract import JobResult, JobSpec, SourceFile, TrainTemplate, TrainWork
from strategies.contract.domains import batch_of
from strategies.errors import Refused
from strategies.jobs import mixing as mixings
from strategies.jobs.leaving import leave
from strategies.jobs.preparing import Prepared, prepare_run
from strategies.jobs.runtime import Runtime, say
from strategies.jobs.state import read_cursor
from strategies.objective import OBJECTIVES, Objective
from strategies.objective.group_dro import GroupDro
from strategies.objective.local import Local
from strategies.parts import AdapterSelection, GroupDroObjective, WeightedMixing
from strategies.settings.consolidation import TaskMeanConsolidation
from strategies.settings.objective import LocalObjective
from strategies.training.adapters import earlier_means, scale_of
from strategies.training.batches import Collator
from strategies.training.checkpoint import CheckpointStore
from strategies.training.halves import PlainNames
from strategies.training.loop import Loop
from strategies.training.seams import Part


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
    classes = spec.task == "classification"
    if not (kind == spec.task or (kind == "local" and classes) or (kind == "group-dro" and not classes)):
        raise Refused(f"objective {kind} does not fit task {spec.task}")
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
    sizes = {name: len(rows) for name, rows in prepared.rows.items()}
    micro = min(settings.per_device_train_batch_size or settings.train_batch_size, template.mixing.batch)
    store = CheckpointStore(
        runtime.workspace / "checkpoints",
        fingerprint=fingerprint(spec, template, work.sources),
        earlier=[Path(folder) / "checkpoints" for folder in spec.resume_from],
        say=say,
    )
    return Loop(
        prepared.run,
        objective=_objective(spec, template, prepared),
        parts={"consolidation": _consolidation(template, prepared), "selection": PlainNames()},
        mixing=mixings.sampler(spec, work, sizes, read_cursor(Path(work.cursor)) if work.cursor else None),
        collate=Collator(prepared.rows, spec.task, pad=prepared.loaded.tokenizer.pad_token_id, micro=micro),
        schedule=template.schedule,
        settings=settings,
        steps=template.steps,
        store=store,
        watch=runtime,
    )


def _objective(spec: JobSpec, template: TrainTemplate, prepared: Prepared) -> Objective:
    if isinstance(template.objective, GroupDroObjective):
        assert isinstance(template.mixing, WeightedMixing)
        owners = {source: name for name, sources in template.mixing.domains.items() for source in sources}
        return GroupDro(template.objective, owners)
    if not isinstance(template.objective, LocalObjective):
        return OBJECTIVES[spec.task]()
    own = {int(place) for rows in prepared.rows.values() if rows.labels is not None for place in rows.labels}
    bank = prepared.adaptation.bank if prepared.adaptation else None
    return Local(template.objective, own=own, means=earlier_means(bank, prepared.labels, own))


def _consolidation(template: TrainTemplate, prepared: Prepared) -> Part:
    settings, adaptation = template.consolidation, prepared.adaptation
    if not isinstance(settings, TaskMeanConsolidation) or adaptation is None:
        return consolidation_for(template)
    rows = sum(len(prepared.rows[name]) for name in template.mixing.new)
    return TaskMean(
        settings,
        adaptation.predecessors,
        adapter=adaptation.selection.name,
        scale=scale_of(adaptation.selection.lora),
        epoch_steps=-(-rows // template.mixing.batch),
    )


def fingerprint(spec: JobSpec, template: TrainTemplate, sources: tuple[SourceFile, ...]) -> str:
    """Names what is trained, so that a checkpoint of anything else is not continued; file paths do not matter."""
    # How often checkpoints are written and how many rows go through at once do not change what is trained.
    settings = template.model_dump(mode="json")
    for name in ("save_seconds", "save_steps", "per_device_train_batch_size", "per_device_eval_batch_size"):
        settings["training"].pop(name)
    parts = [spec.task, spec.seed, spec.model.labels, settings, sorted((file.name, file.sha256) for file in sources)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
