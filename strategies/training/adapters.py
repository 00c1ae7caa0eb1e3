"""A task's own adapter on a frozen base: made or copied from the task before, its head beside it (METHODS 3.6)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn

from strategies.errors import BadPlan, BadState
from strategies.inference.bank import BadBank, Manifest
from strategies.inference.bank.adapted import AdaptedClassifier
from strategies.inference.bank.files import ADAPTERS, HEAD, base_digest, read_adapter, read_tensors
from strategies.inference.load import grow_head, name_labels, read_bank
from strategies.inference.names import scale_of
from strategies.inference.statistics import read_statistics
from strategies.parts import AdapterSelection
from strategies.settings import LoraSettings, Task
from strategies.training.lora import Predecessor, lora_config


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """A model in which one task's adapter (and the head that all tasks share) moves, and where it comes from.

    ``model`` is an :class:`AdaptedClassifier`, or a PeftModel for language models. ``manifest`` is None for the first
    task, whose ``predecessors`` are none.
    """

    model: Any
    selection: AdapterSelection
    base: str
    bank: Path | None
    manifest: Manifest | None
    predecessors: tuple[Predecessor, ...]

    @property
    def adapted(self) -> Any:
        """The PeftModel itself."""
        return self.model.body if isinstance(self.model, AdaptedClassifier) else self.model

    @property
    def scale(self) -> float:
        """What the product of its factors is multiplied by."""
        return _scale(self.selection.lora)


def adapt(
    model: Any, selection: AdapterSelection, *, task: Task, bank: Path | None, labels: tuple[str, ...], seed: int
) -> Adaptation:
    """A new adapter ``selection.name`` on the frozen ``model``, as a copy of ``selection.start`` if it names one.

    A classifier's own head stays behind: the bank's head goes on and grows to ``labels``; the first task's is new.

    Raises:
        BadPlan: the name is taken, ``start`` is not in the bank, or has another rank or scale.
        BadState: the bank does not belong to this base, or a stored adapter was changed.
    """
    manifest = read_bank(bank) if bank else None
    base = model.base_model if task == "classification" else model
    digest = base_digest(base)
    _check(selection, manifest, digest, bank)
    wrapped = peft.get_peft_model(base, _config(base, selection.lora, task), adapter_name=selection.name)
    stored = _stored(bank, manifest)
    if selection.start is not None:
        _copy(wrapped, stored[selection.start], selection, bank)
    adapted = wrapped
    if task == "classification":
        adapted = AdaptedClassifier(wrapped, _head(base, bank, manifest, labels, seed), pooling=selection.pooling)
        grow_head(adapted, labels, seed=seed)
    return Adaptation(
        model=adapted,
        selection=selection,
        base=digest,
        bank=bank,
        manifest=manifest,
        predecessors=tuple(Predecessor(tensors=one, scale=_scale_at(bank, name)) for name, one in stored.items()),
    )


def set_head_rate(optimizer: torch.optim.Optimizer, model: nn.Module, rate: float) -> None:
    """Give the head's parameters groups of their own, with ``rate`` times the base rate of the adapter's.

    Without weight decay: that moves the rows of other tasks' classes, which have no gradient, and at this rate far.
    """
    head = {id(parameter) for parameter in getattr(model, "classifier", nn.Module()).parameters()}
    for group in list(optimizer.param_groups):
        own = [parameter for parameter in group["params"] if id(parameter) in head]
        group["params"] = [parameter for parameter in group["params"] if id(parameter) not in head]
        if own:
            rates = {"lr": group["lr"] * rate, "base_lr": group["base_lr"] * rate}
            optimizer.add_param_group({**group, "params": own, "weight_decay": 0.0, **rates})
    optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]


def earlier_means(bank: Path | None, labels: Sequence[str], own: Collection[int]) -> Tensor | None:
    """Stored means (n, d) of classes other than those at the places ``own`` of ``labels``; None if there are none."""
    if bank is None:
        return None
    mine = {labels[place] for place in own}
    stored = read_statistics(bank).gaussians
    means = [gaussian.mean.float() for label, gaussian in stored.items() if label not in mine]
    return torch.stack(means) if means else None


def _check(selection: AdapterSelection, manifest: Manifest | None, digest: str, bank: Path | None) -> None:
    names = manifest.names if manifest else ()
    if selection.name in names:
        raise BadPlan(f"the bank already has an adapter {selection.name}; stored adapters never change: name another")
    if selection.start is not None and selection.start not in names:
        raise BadPlan(f"adapter {selection.name} starts from {selection.start}, which the bank does not have")
    if manifest and manifest.base != digest:
        raise BadState(f"the bank in {bank} was trained on another base model; start a new bank")
    if manifest and manifest.kind == "classes" and manifest.pooling != selection.pooling:
        raise BadPlan(
            f"the bank pools features by {manifest.pooling}, the plan by {selection.pooling}; keep the bank's"
        )


def _stored(bank: Path | None, manifest: Manifest | None) -> dict[str, dict[str, Tensor]]:
    if bank is None or manifest is None:
        return {}
    try:
        return {entry.name: read_adapter(bank, entry) for entry in manifest.adapters}
    except BadBank as error:
        raise BadState(str(error)) from error


def _config(base: Any, lora: LoraSettings, task: Task) -> Any:
    # A pooler does not reach the feature; an adapter on it would only be stored.
    pooler = any(name.split(".")[0] == "pooler" for name, _ in base.named_modules())
    return lora_config(
        base,
        lora,
        task_type="FEATURE_EXTRACTION" if task == "classification" else "CAUSAL_LM",
        exclude_modules=r"pooler\..*" if pooler and lora.target_modules == "all-linear" else None,
    )


def _copy(wrapped: Any, tensors: Mapping[str, Tensor], selection: AdapterSelection, bank: Path | None) -> None:
    before, now = _scale_at(bank, str(selection.start)), _scale(selection.lora)
    if before != now:
        raise BadPlan(
            f"adapter {selection.start} is scaled by {before:g}, the settings say {now:g}; keep training.lora"
        )
    own = peft.get_peft_model_state_dict(wrapped, adapter_name=selection.name, save_embedding_layers=False)
    fits = own.keys() == tensors.keys() and all(own[name].shape == tensors[name].shape for name in own)
    if not fits:
        raise BadPlan(f"adapter {selection.start} has another rank or other modules; keep training.lora as it was")
    peft.set_peft_model_state_dict(wrapped, dict(tensors), adapter_name=selection.name)


def _scale_at(bank: Path | None, name: str) -> float:
    assert bank is not None
    return _scale(peft.PeftConfig.from_pretrained(str(bank / ADAPTERS / name)))


def _scale(lora: LoraSettings | peft.LoraConfig) -> float:
    return scale_of(lora.r, lora.lora_alpha, rslora=lora.use_rslora)


def _head(base: Any, bank: Path | None, manifest: Manifest | None, labels: tuple[str, ...], seed: int) -> nn.Linear:
    if bank is not None and manifest is not None:
        tensors = read_tensors(bank, HEAD, manifest)
        head = nn.Linear(tensors["weight"].shape[1], tensors["weight"].shape[0])
        head.load_state_dict(tensors)
        return head
    head = nn.Linear(int(base.config.hidden_size), len(labels))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        head.weight.normal_(0.0, float(getattr(base.config, "initializer_range", None) or 0.02), generator=generator)
        head.bias.zero_()
    name_labels(base, labels)
    return head
