"""A frozen base with its adapters: every row of a batch may be run under an adapter of its own."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import peft
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from .files import ADAPTER_CONFIG, ADAPTERS, BadBank, Manifest, adapter_digest, base_digest, read_adapter

BASE = "__base__"
"""Peft's name for running a row under no adapter."""
TRIED = 2
"""Rows that a model is tried on."""
_MIXES: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
_SWITCHED = threading.RLock()
"""Held while a model stands under one adapter alone: a model is asked by one thread at a time then."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a bank's forward gives: logits, and for each row the place of the adapter that made them (-1: the base)."""

    logits: Tensor
    adapters: tuple[int, ...] = ()


def attach(base: nn.Module, folder: Path, manifest: Manifest) -> Any:
    """All adapters of a bank on ``base``, frozen, each checked against its digest before and after it is put on.

    Raises:
        BadBank: the base is another one than the adapters were trained on, or a stored adapter was changed.
    """
    if base_digest(base) != manifest.base:
        raise BadBank(f"the bank in {folder} was trained on another base model; give the one it was trained on")
    model: Any = None
    for entry in manifest.adapters:
        # Before, because peft acts upon whatever settings it is given; after, because it reads the files anew and
        # passes over tensors that fit no module.
        read_adapter(folder, entry)
        where = str(folder / ADAPTERS / entry.name)
        if model is None:
            model = peft.PeftModel.from_pretrained(base, where, adapter_name=entry.name, torch_device="cpu")
        else:
            model.load_adapter(where, adapter_name=entry.name, torch_device="cpu")
        if live_digest(model, entry.name, folder) != entry.sha256:
            raise BadBank(f"adapter {entry.name} of {folder} changed while it was read; restore the folder")
    model.requires_grad_(False)
    return model.eval()


def live_digest(model: Any, name: str, folder: Path) -> str:
    """The digest of an adapter as it is in memory; equal to the stored one unless something wrote to it."""
    config = json.loads((folder / ADAPTERS / name / ADAPTER_CONFIG).read_bytes())
    tensors = peft.get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    return adapter_digest(tensors, config)


def run(model: Any, inputs: Mapping[str, Any], adapters: Sequence[str]) -> Any:
    """A forward pass with row i under ``adapters[i]`` (:data:`BASE`: none); rows keep their order.

    One pass for all rows where :func:`mixes`, else one for each adapter among them.
    """
    names = list(adapters)
    if mixes(model):
        return model(**inputs, adapter_names=names)
    places = {name: [row for row, own in enumerate(names) if own == name] for name in dict.fromkeys(names)}
    parts = []
    for name, rows in places.items():
        with under(model, name):
            parts.append(model(**{key: _rows(value, rows) for key, value in inputs.items()}))
    order = torch.tensor([row for rows in places.values() for row in rows]).argsort()
    return _joined(parts, order)


def generated(model: Any, name: str, **options: Any) -> Tensor:
    """Token ids that a language model's ``generate`` gives under one adapter (:data:`BASE`: none)."""
    if mixes(model):
        found: Tensor = model.generate(adapter_names=[name], **options)
        return found
    with under(model, name):
        alone: Tensor = model.generate(**options)
        return alone


def mixes(model: Any) -> bool:
    """Whether each row of a batch can be under an adapter of its own; tried once a model, on short rows.

    Peft deals the first dimension of a layer's input out among the adapters. That is not one of rows where a model
    flattens them (OPT, experts) or shares an input among them (DeBERTa's relative positions).
    """
    if model not in _MIXES:
        layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        parameters = any(isinstance(one, ParamWrapper) for one in layers)
        _MIXES[model] = not parameters and set(_dealt(model, layers)) == {TRIED}
    return _MIXES[model]


def _dealt(model: Any, layers: Sequence[nn.Module]) -> list[int]:
    """The first dimension of what each layer is given of :data:`TRIED` rows."""
    found: list[int] = []
    handles = [one.register_forward_pre_hook(lambda _, inputs: found.append(len(inputs[0]))) for one in layers]
    ids = torch.zeros(TRIED, 3, dtype=torch.int64, device=next(model.parameters()).device)
    try:
        with torch.inference_mode():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for handle in handles:
            handle.remove()
    return found


@contextmanager
def under(model: Any, name: str) -> Iterator[None]:
    """``model`` with all rows under one adapter, frozen; afterwards the one that was active is so again."""
    with _SWITCHED:
        before, trained = model.active_adapter, [one for one in model.parameters() if one.requires_grad]
        model.set_adapter(next(iter(model.peft_config)) if name == BASE else name, inference_mode=True)
        try:
            if name == BASE:
                with model.disable_adapter():
                    yield
            else:
                yield
        finally:
            model.set_adapter(before, inference_mode=True)
            model.requires_grad_(False)
            for parameter in trained:
                parameter.requires_grad_(True)


def _rows(value: Any, rows: list[int]) -> Any:
    return value[rows] if isinstance(value, Tensor) else value


def _joined(parts: Sequence[Any], order: Tensor) -> Any:
    """Outputs of some rows each as one of all rows, in ``order``: their tensors, and tuples of tensors."""
    made = type(parts[0])()
    for key, value in parts[0].items():
        if isinstance(value, Tensor):
            made[key] = torch.cat([part[key] for part in parts])[order.to(value.device)]
        elif isinstance(value, tuple) and all(isinstance(one, Tensor) for one in value):
            layers = zip(*(part[key] for part in parts), strict=True)
            made[key] = tuple(torch.cat(layer)[order.to(layer[0].device)] for layer in layers)
    return made


def feature(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Hidden states (rows, length, d) to features (rows, d) in float32: pooled over the mask, then standardised.

    ``mean`` is over the mask, ``cls`` the first token, ``last`` the last token that is no padding (METHODS 3.6).
    """
    hidden = hidden.float()
    if pooling == "cls":
        pooled = hidden[:, 0]
    elif pooling == "last":
        last = mask.cumsum(1).argmax(1)
        pooled = hidden[torch.arange(len(hidden), device=hidden.device), last]
    else:
        pooled = mean_over(hidden, mask)
    return F.layer_norm(pooled, pooled.shape[-1:])


def mean_over(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean of hidden states (rows, length, d) over ``mask`` (rows, length), in float32."""
    weights = mask.unsqueeze(-1).to(torch.float32)
    return (hidden.float() * weights).sum(1) / weights.sum(1).clamp_min(1.0)


class AdaptedClassifier(nn.Module):
    """A frozen body, the adapter that is active on it, and a linear head over all classes, outside of peft.

    Peft would copy a head for each adapter (``modules_to_save``); here all tasks share one.
    """

    def __init__(self, body: Any, head: nn.Linear, *, pooling: str) -> None:
        super().__init__()
        self.classifier = head
        self.body = body
        self.pooling = pooling

    @property
    def config(self) -> Any:
        """The body's configuration, as every model of transformers has one."""
        return self.body.config

    def features(self, inputs: dict[str, Tensor], adapters: Sequence[str] | None = None) -> Tensor:
        """Features (rows, d) of token ids and their mask under the active adapter, or row i under ``adapters[i]``."""
        found = self.body(**inputs) if adapters is None else run(self.body, inputs, adapters)
        return feature(found.last_hidden_state, inputs["attention_mask"], self.pooling)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Answer:
        """Logits over all classes of the head."""
        return Answer(logits=self.classifier(self.features({"input_ids": input_ids, "attention_mask": attention_mask})))
