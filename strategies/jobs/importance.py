"""Fisher information of a merge's parents, estimated from rows they were trained on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from strategies.contract import JobSpec, MergeParent, SourceFile
from strategies.errors import Refused
from strategies.inference import precision as precisions
from strategies.inference.encoding import Encoder, Example
from strategies.inference.load import load
from strategies.inference.score import windows
from strategies.jobs.runtime import Runtime
from strategies.merging.fisher import (
    Estimator,
    Importance,
    empirical_fisher,
    exact_fisher,
    load_importance,
    sampled_fisher,
    save_importance,
)
from strategies.settings import TrainingSettings
from strategies.settings.merging import FisherMerge
from strategies.training.data import Documents, messages_of, training_side


def importance_of(
    spec: JobSpec,
    parent: MergeParent,
    folder: Path,
    runtime: Runtime,
    *,
    settings: FisherMerge,
    training: TrainingSettings,
) -> Importance | None:
    """What a parent brings, or an estimate in ``folder`` from its rows; None if it brings neither.

    Exact over labels for classifiers; for language models by the estimator of ``settings``, all parents under the
    job's seed.
    """
    if parent.fisher or parent.rows is None:
        return load_importance(Path(parent.fisher)) if parent.fisher else None
    runtime.enter(f"estimating the Fisher information of {parent.role}")
    device = precisions.device_for(spec.device)
    loaded = load(parent.model, spec.task, device=device, seed=spec.seed)
    model = loaded.model.merge_and_unload() if parent.model.adapter else loaded.model
    model.requires_grad_(True)
    encoder = Encoder(loaded.tokenizer, training.max_length)
    found = _documents(parent.rows, spec, settings.documents)
    estimator: Estimator = "exact" if spec.task == "classification" else settings.estimator
    if estimator == "exact":
        tensors = exact_fisher(model, _texts(found, encoder, device, runtime))
    elif estimator == "sampled":
        tensors = sampled_fisher(model, _tokens(found, spec, encoder, device, runtime), seed=spec.seed)
    else:
        tensors = empirical_fisher(model, _tokens(found, spec, encoder, device, runtime))
    save_importance(folder, tensors, estimator=estimator, examples=len(found))
    return load_importance(folder)


def _documents(source: SourceFile, spec: JobSpec, count: int) -> Documents:
    found = training_side(source, spec.task).first(count)
    if not len(found):
        raise Refused(f"{source.name} has no row to estimate Fisher information from; name another batch")
    return found


def _texts(found: Documents, encoder: Encoder, device: torch.device, runtime: Runtime) -> Iterator[dict[str, Tensor]]:
    for ids in encoder.classified(found.column("text")):
        runtime.check()
        row = torch.tensor([ids], device=device)
        yield {"input_ids": row, "attention_mask": torch.ones_like(row)}


def _tokens(
    found: Documents, spec: JobSpec, encoder: Encoder, device: torch.device, runtime: Runtime
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    for ids, targets in _examples(found, spec, encoder):
        runtime.check()
        yield {"input_ids": torch.tensor([ids], device=device)}, torch.tensor([targets], device=device)


def _examples(found: Documents, spec: JobSpec, encoder: Encoder) -> list[Example]:
    """One example a document: a dialogue, or the first window of a text."""
    if spec.task == "sft":
        return encoder.dialogues(messages_of(found.column("messages")))
    texts = encoder.texts(found.column("text"))
    return [windows(encoder.opening, ids, encoder.max_length)[0] for ids in texts if ids]
