"""What a train job begins with: data read, model loaded and tokenised, what moves made ready."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from strategies.contract import JobSpec, TrainTemplate, TrainWork
from strategies.errors import Refused
from strategies.inference import precision as precisions
from strategies.inference.encoding import IGNORED, Encoder
from strategies.inference.load import Loaded, load
from strategies.inference.precision import Precision
from strategies.inference.score import Scorer
from strategies.jobs import mixing as mixings
from strategies.jobs.dividing import classes_by, parts
from strategies.jobs.measure import can_pack
from strategies.jobs.runtime import Runtime
from strategies.jobs.state import read_moments
from strategies.objective.group_dro import REFERENCE
from strategies.parts import (
    AdapterSelection,
    WeightedMixing,
)
from strategies.settings import TrainingSettings
from strategies.training import randomness
from strategies.training.adapters import Adaptation, adapt, set_head_rate
from strategies.training.data import Documents, HeldOut, training_side
from strategies.training.packing import Packing
from strategies.training.parameters import moving, optimizer_for, prepare, put_moments
from strategies.training.rows import Rows, encode_rows
from strategies.training.seams import Run


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """All that the loop is given."""

    loaded: Loaded
    precision: Precision
    rows: dict[str, Rows]
    run: Run
    packing: Packing
    compared: int
    encoder: Encoder
    labels: tuple[str, ...]
    """The model's classes with those that came new; empty for other tasks."""
    adaptation: Adaptation | None = None


def prepare_run(spec: JobSpec, work: TrainWork, runtime: Runtime) -> Prepared:
    """Read, verify, load and tokenise; nothing is trained yet."""
    template, settings = work.template, work.template.training
    runtime.enter("loading model")
    randomness.seed_all(spec.seed)
    loaded = load(spec.model, spec.task, device=precisions.device_for(spec.device), adapter=False, seed=spec.seed)
    precision = precisions.choose(loaded.model, settings.bf16)
    labels = _grown_labels(spec, loaded)
    packing = can_pack(spec, loaded, precision, wanted=settings.packing)
    encoder = Encoder(loaded.tokenizer, settings.max_length)
    held_out = HeldOut.of(work.forbidden)
    rows = {
        name: _rows(name, found, spec, encoder, packing=packing.passed, labels=labels, runtime=runtime)
        for name, found in _drawn(spec, work, held_out, runtime)
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
        put_moments(optimizer, parameters, read_moments(Path(work.optimizer)))
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
        compared=held_out.documents,
        encoder=encoder,
        labels=labels,
        adaptation=adaptation,
    )


def _drawn(spec: JobSpec, work: TrainWork, held_out: HeldOut, runtime: Runtime) -> Iterator[tuple[str, Documents]]:
    """What the mixing draws from, batches or their classes, and the documents of each: one batch in memory at a time.

    Raises:
        Refused: a batch is not what was stored, or has documents that are held out.
    """
    mixing = work.template.mixing
    weighted = mixing if isinstance(mixing, WeightedMixing) else None
    classes = classes_by(weighted.divide, work.space, spec.task) if weighted else None
    for source in work.sources:
        runtime.enter(f"tokenising {source.name}")
        whole = training_side(source, spec.task)
        held_out.refuse(source.name, whole)
        for name, one in parts(source.name, whole, classes).items():
            if weighted is None or name in weighted.sources:
                yield name, one


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
