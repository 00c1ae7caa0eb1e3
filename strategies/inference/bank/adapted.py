"""A frozen base with its adapters: every row of a batch may be run under an adapter of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from .files import ADAPTERS, CONFIG, BadBank, Manifest, adapter_digest, base_digest, read_adapter

BASE = "__base__"
"""Peft's name for running a row under no adapter."""


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
        read_adapter(folder, entry)
        where = str(folder / ADAPTERS / entry.name)
        if model is None:
            model = peft.PeftModel.from_pretrained(base, where, adapter_name=entry.name, torch_device="cpu")
        else:
            model.load_adapter(where, adapter_name=entry.name, torch_device="cpu")
    model.requires_grad_(False)
    return model.eval()


def live_digest(model: Any, name: str, folder: Path) -> str:
    """The digest of an adapter as it is in memory; equal to the stored one unless something wrote to it."""
    config = json.loads((folder / ADAPTERS / name / CONFIG).read_bytes())
    tensors = peft.get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    return adapter_digest(tensors, config)


def run(model: Any, inputs: dict[str, Any], adapters: Sequence[str]) -> Any:
    """One forward pass, row i under ``adapters[i]`` (:data:`BASE`: none); rows keep their order and share the base's
    products.

    Nothing is switched: switching adapters, or off and on again, would also make them trainable.
    """
    return model(**inputs, adapter_names=list(adapters))


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
        # First, so that a search for the classifier's head finds this one and not a layer of the body.
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
