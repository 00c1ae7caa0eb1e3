"""Fisher information of a merge's parents, estimated from rows they were trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from strategies.contract import JobSpec, MergeParent, SourceFile
from strategies.errors import Refused
from strategies.inference import precision as precisions
from strategies.inference.encoding import Encoder, Example
from strategies.inference.load import load
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
from strategies.training.data import Documents, training_side


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
    found = _documents(parent.rows, spec, settings.documents)
    # One example a document: of a text its first window.
    documents = Encoder(loaded.tokenizer, training.max_length).examples(found, spec.task, loaded.labels)
    examples = [own[0] for own in documents if own]
    estimator: Estimator = "exact" if spec.task == "classification" else settings.estimator
    if estimator == "exact":
        tensors = exact_fisher(model, _texts(examples, device, runtime))
    elif estimator == "sampled":
        tensors = sampled_fisher(model, _tokens(examples, device, runtime), seed=spec.seed)
    else:
        tensors = empirical_fisher(model, _tokens(examples, device, runtime))
    save_importance(folder, tensors, estimator=estimator, examples=len(found))
    return load_importance(folder)


def _documents(source: SourceFile, spec: JobSpec, count: int) -> Documents:
    found = training_side(source, spec.task).first(count)
    if not len(found):
        raise Refused(f"{source.name} has no row to estimate Fisher information from; name another batch")
    return found


def _texts(examples: Sequence[Example], device: torch.device, runtime: Runtime) -> Iterator[dict[str, Tensor]]:
    for ids, _ in examples:
        runtime.check()
        row = torch.tensor([ids], device=device)
        yield {"input_ids": row, "attention_mask": torch.ones_like(row)}


def _tokens(
    examples: Sequence[Example], device: torch.device, runtime: Runtime
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    for ids, targets in examples:
        runtime.check()
        yield {"input_ids": torch.tensor([ids], device=device)}, torch.tensor([targets], device=device)
