"""The train job: one run of the loop, from snapshots and a model to artifacts."""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file

from strategies.consolidation import TaskMean, consolidation_for
from strategies.contract import Consumed, JobResult, JobSpec, SourceFile, TrainTemplate, TrainWork
from strategies.errors import BadState, Refused
from strategies.inference.encoding import IGNORED, Encoder
from strategies.inference.export import save_adapter, save_model, save_tokenizer
from strategies.inference.export_bank import write_reader
from strategies.inference.load import Loaded, load, read_bank
from strategies.inference.score import Scorer
from strategies.jobs import mixing as mixings
from strategies.jobs.bank import Trained, write_bank
from strategies.jobs.consumed import consumed
from strategies.jobs.dividing import classes_by, parts
from strategies.jobs.facts import common
from strategies.jobs.measure import can_pack
from strategies.jobs.runtime import Runtime, say
from strategies.mixing.domains import batch_of
from strategies.mixing.trajectory import MixturePoint
from strategies.mixing.weighted import WeightedMixer
from strategies.objective import OBJECTIVES, Objective
from strategies.objective.group_dro import REFERENCE, GroupDro
from strategies.objective.local import Local
from strategies.parts import (
    AdapterSelection,
    GroupDroObjective,
    LocalObjective,
    TaskMeanConsolidation,
    WeightedMixing,
)
from strategies.settings import Json, TrainingSettings
from strategies.training import precision as precisions
from strategies.training import randomness
from strategies.training.adapters import Adaptation, adapt, earlier_means, scale_of, set_head_rate
from strategies.training.batches import Collator
from strategies.training.checkpoint import CheckpointStore, copied
from strategies.training.data import Documents, refuse_leaks, training_side
from strategies.training.halves import PlainNames
from strategies.training.loop import Loop, Progress
from strategies.training.parameters import counts, is_adapted, moments, moving, optimizer_for, prepare, put_moments
from strategies.training.precision import Precision
from strategies.training.rows import Rows, encode_rows
from strategies.training.seams import Part, Run

MIXING_FILE = "mixing.json"
OPTIMIZER_FILE = "optimizer.safetensors"


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """All that the loop is given."""

    loaded: Loaded
    precision: Precision
    rows: dict[str, Rows]
    run: Run
    packing: dict[str, Any]
    compared: int
    encoder: Encoder
    adaptation: Adaptation | None = None


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
    progress = loop.train()
    gc.unfreeze()
    facts = _facts(spec, work, prepared, loop)
    if prepared.adaptation is not None:
        runtime.enter("making the bank")
        facts["bank"] = _bank(spec, work, prepared, loop, runtime)
    runtime.enter("saving", stoppable=False)
    course = _course(loop)
    evidence = _evidence(spec, work, loop, course, runtime.directory / "out")
    if course:
        facts["mixture"] = mixings.thinned(course)
    return JobResult(
        kind="train",
        artifacts={**_artifacts(spec, work, prepared, progress, runtime.workspace), **evidence},
        consumed=tuple(_consumed(source, prepared, progress, runtime.workspace) for source in work.sources),
        labels=_labels(spec, prepared),
        facts=facts,
    )


def _bank(spec: JobSpec, work: TrainWork, prepared: Prepared, loop: Loop, runtime: Runtime) -> Json:
    merging = loop.parts["consolidation"]
    assert prepared.adaptation is not None
    assert isinstance(merging, TaskMean)
    trained = Trained(
        adaptation=prepared.adaptation,
        rows=prepared.rows,
        encoder=prepared.encoder,
        labels=_labels(spec, prepared),
        precision=prepared.precision,
        settings=merging.settings,
        training=work.template.training,
        pad=prepared.loaded.tokenizer.pad_token_id,
        seed=spec.seed,
        tick=runtime.check,
    )
    folder = runtime.workspace / "out" / "bank"
    made = write_bank(trained, folder)
    write_reader(folder, read_bank(folder), place=".")
    return {**merging.facts, **made}


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


def prepare_run(spec: JobSpec, work: TrainWork, runtime: Runtime) -> Prepared:
    """Read, verify, load and tokenise; nothing is trained yet."""
    template, settings = work.template, work.template.training
    runtime.enter("reading data")
    documents = {source.name: training_side(source, spec.task) for source in work.sources}
    compared = refuse_leaks(list(documents.items()), work.forbidden)
    runtime.enter("loading model")
    randomness.seed_all(spec.seed)
    loaded = load(spec.model, spec.task, device=precisions.device_for(spec.device), adapter=False, seed=spec.seed)
    precision = precisions.choose(loaded.model, settings.bf16)
    labels = _grown_labels(spec, loaded)
    packing = can_pack(spec, loaded, precision, wanted=settings.packing)
    runtime.enter("tokenising")
    encoder = Encoder(loaded.tokenizer, settings.max_length)
    rows = {
        name: _rows(name, found, spec, encoder, packing=bool(packing["passed"]), labels=labels, runtime=runtime)
        for name, found in _sources(spec, work, documents).items()
    }
    model, adaptation = _prepared(spec, template, loaded, labels)
    model = model.to(precision.device)
    if settings.gradient_checkpointing:
        _recompute_activations(adaptation.adapted if adaptation else model)
    parameters = moving(model)
    optimizer = optimizer_for(parameters, template.schedule, settings)
    if isinstance(template.selection, AdapterSelection):
        set_head_rate(optimizer, model, template.selection.head_rate)
    if work.optimizer is not None:
        put_moments(optimizer, parameters, _moments_at(Path(work.optimizer)))
    run = Run(model=model, precision=precision, parameters=parameters, optimizer=optimizer)
    run.losses = mixings.losses_of(
        spec,
        work,
        encoder=encoder,
        scorer=_scorer(run, loaded, settings, runtime),
        labels=labels,
        tick=runtime.check,
    )
    if work.reference is not None:
        run.frozen_models[REFERENCE] = load(work.reference, spec.task, device=precision.device, seed=spec.seed).model
    return Prepared(
        loaded=loaded,
        precision=precision,
        rows=rows,
        run=run,
        packing=packing,
        compared=compared,
        encoder=encoder,
        adaptation=adaptation,
    )


def _sources(spec: JobSpec, work: TrainWork, documents: dict[str, Documents]) -> dict[str, Documents]:
    """The documents of every source that the mixing draws from: batches, or their classes."""
    mixing = work.template.mixing
    if not isinstance(mixing, WeightedMixing):
        return documents
    classes = classes_by(mixing.divide, work.space, spec.task)
    found = {name: one for batch, whole in documents.items() for name, one in parts(batch, whole, classes).items()}
    return {name: one for name, one in found.items() if name in mixing.sources}


def _scorer(run: Run, loaded: Loaded, settings: TrainingSettings, runtime: Runtime) -> Scorer:
    return Scorer(
        model=run.model,
        precision=run.precision,
        pad=loaded.tokenizer.pad_token_id,
        rows=settings.per_device_eval_batch_size,
        tick=lambda done: runtime.check(),
    )


def _prepared(
    spec: JobSpec, template: TrainTemplate, loaded: Loaded, labels: tuple[str, ...]
) -> tuple[Any, Adaptation | None]:
    if isinstance(template.selection, AdapterSelection):
        bank = Path(spec.model.bank) if spec.model.bank else None
        made = adapt(loaded.model, template.selection, task=spec.task, bank=bank, labels=labels, seed=spec.seed)
        return made.model, made
    if spec.model.bank is not None:
        raise Refused("a bank of adapters goes on with an adapter a task only; start from the base model instead")
    adapter = Path(spec.model.adapter) if spec.model.adapter else None
    return prepare(
        loaded.model, template.selection, task=spec.task, adapter=adapter, labels=labels, seed=spec.seed
    ), None


def _recompute_activations(model: Any) -> None:
    # transformers renames this; the old name is all that the oldest supported version has.
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    # Reentrant recomputation alone needs inputs that require a gradient; here they would make the backward pass go
    # through lower blocks in which nothing moves.
    if hasattr(model, "_require_grads_hook"):
        model.disable_input_require_grads()


def _grown_labels(spec: JobSpec, loaded: Loaded) -> tuple[str, ...]:
    if spec.task != "classification":
        return ()
    wanted = spec.model.labels or loaded.labels
    if wanted[: len(loaded.labels)] != loaded.labels:
        raise Refused(f"model.labels must begin with the model's own classes in order: {', '.join(loaded.labels)}")
    return wanted


def _rows(
    name: str,
    documents: Documents,
    spec: JobSpec,
    encoder: Encoder,
    *,
    packing: bool,
    labels: tuple[str, ...],
    runtime: Runtime,
) -> Rows:
    rows = encode_rows(documents, encoder, spec.task, packing=packing, labels=labels, tick=runtime.check)
    if rows.labels is not None and (rows.labels == IGNORED).any():
        raise Refused(f"source {name} has labels that model.labels does not name; name every class")
    return rows


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
        mixing=mixings.sampler(spec, work, sizes, _cursor(work)),
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
    return Local(template.objective, own=own, means=earlier_means(bank, _labels(spec, prepared), own))


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


def _cursor(work: TrainWork) -> Json | None:
    if work.cursor is None:
        return None
    try:
        state: Json = json.loads((Path(work.cursor) / MIXING_FILE).read_bytes())["state"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadState(f"the mixing state at {work.cursor} cannot be read; start the stage without it") from error
    return state


def _moments_at(folder: Path) -> dict[str, Any]:
    try:
        return dict(load_file(folder / OPTIMIZER_FILE))
    except (OSError, ValueError) as error:
        raise BadState(f"the optimizer state at {folder} cannot be read; start without it") from error


def _labels(spec: JobSpec, prepared: Prepared) -> tuple[str, ...]:
    return _grown_labels(spec, prepared.loaded)


def _artifacts(
    spec: JobSpec, work: TrainWork, prepared: Prepared, progress: Progress, directory: Path
) -> dict[str, str]:
    bank = isinstance(work.template.selection, AdapterSelection)
    lora = is_adapted(prepared.run.model)
    answer = "bank" if bank else "adapter" if lora else "model"
    artifacts = {f"answer/{answer}": f"out/{answer}"}
    out = directory / "out"
    out.mkdir(exist_ok=True)
    if "state/optimizer" in work.template.state:
        artifacts["state/optimizer"] = "out/optimizer"
        (out / "optimizer").mkdir(exist_ok=True)
        save_file(copied(moments(prepared.run.optimizer, prepared.run.parameters)), out / "optimizer" / OPTIMIZER_FILE)
    if "state/mixing" in work.template.state:
        artifacts["state/mixing"] = "out/mixing"
        (out / "mixing").mkdir(exist_ok=True)
        (out / "mixing" / MIXING_FILE).write_text(json.dumps({"format": 1, "state": progress.mixing}))
    if "state/trunk" in work.template.state:
        artifacts["state/trunk"] = f"out/{answer}"
    model = prepared.run.model
    if bank:
        return artifacts
    if lora:
        save_adapter(model, out / "adapter", labels=_labels(spec, prepared))
        save_tokenizer(prepared.loaded.tokenizer, out / "adapter", parent=spec.model.path)
    else:
        save_model(
            model,
            out / "model",
            tokenizer=prepared.loaded.tokenizer,
            parent=spec.model.path,
            dtype=prepared.loaded.published_dtype,
        )
    return artifacts


def _course(loop: Loop) -> Sequence[MixturePoint]:
    """Every mixture that was in force, or the weights that group DRO gave the domains; none of a plain replay."""
    if isinstance(loop.objective, GroupDro):
        return loop.objective.trajectory()
    return loop.mixing.trajectory if isinstance(loop.mixing, WeightedMixer) else ()


def _mixture(loop: Loop) -> Mapping[str, float]:
    """What later jobs of the plan draw by: what group DRO found, or the weights that were in force last."""
    if isinstance(loop.objective, GroupDro):
        return loop.objective.mixture()
    assert isinstance(loop.mixing, WeightedMixer)
    return loop.mixing.weights()


def _evidence(spec: JobSpec, work: TrainWork, loop: Loop, course: Sequence[MixturePoint], out: Path) -> dict[str, str]:
    artifacts: dict[str, str] = {}
    if course:
        artifacts |= mixings.keep_course(spec, work, course, loop.progress.tokens, out)
    if "state/mixture" in work.template.state:
        mixings.write_mixture(out / "found", _mixture(loop))
        artifacts["state/mixture"] = "out/found"
    if work.space is not None:
        shutil.copytree(work.space, out / "space", dirs_exist_ok=True)
        artifacts["state/domains"] = "out/space"
    return artifacts


def _consumed(source: SourceFile, prepared: Prepared, progress: Progress, directory: Path) -> Consumed:
    """Documents that the batch's rows touched, those of all its parts together."""
    own = [name for name in prepared.rows if batch_of(name) == source.name]
    touched = [prepared.rows[name].touched(progress.ledger.drawn[name]) for name in own]
    flags = np.logical_or.reduce(touched) if touched else np.zeros(0, np.bool_)
    samples = sum(progress.ledger.samples[name] for name in own)
    return consumed(source, flags, samples=samples, directory=directory)


def _facts(spec: JobSpec, work: TrainWork, prepared: Prepared, loop: Loop) -> Json:
    progress = loop.progress
    return {
        **common(spec, prepared.precision),
        "steps": loop.run.step,
        "tokens": progress.tokens,
        "wall_s": round(progress.wall_s, 3),
        "cpu_s": round(progress.cpu_s, 3),
        "tokens_per_s": round(progress.tokens / max(progress.wall_s, 1e-9), 1),
        "losses": [[step, loss, lr] for step, loss, lr in progress.log.points],
        "final_loss": progress.log.last,
        "skipped_steps": progress.bad,
        "resumed_from": progress.resumed_from,
        "micro_batch": loop.collate.micro,
        "packing": prepared.packing,
        "eval_documents_compared": prepared.compared,
        "fingerprint": loop.store.fingerprint,
        "sources": {
            name: {
                "sha256": next(source.sha256 for source in work.sources if source.name == batch_of(name)),
                "rows": len(rows),
                "tokens": rows.tokens,
                "dropped_tokens": rows.dropped,
            }
            for name, rows in prepared.rows.items()
        },
        **counts(prepared.run.model, prepared.run.parameters),
    }
