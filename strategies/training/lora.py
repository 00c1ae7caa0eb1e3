"""peft's settings of a new adapter, from ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import peft
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from strategies.settings import LoraSettings


def lora_config(model: nn.Module, settings: LoraSettings, *, task_type: str, **more: Any) -> Any:
    """The configuration of a fresh adapter on ``model``; ``more`` is passed to peft as it is."""
    targets = settings.target_modules
    return peft.LoraConfig(
        task_type=task_type,
        r=settings.r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        use_rslora=settings.use_rslora,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        target_modules=targets if isinstance(targets, str) else list(targets),
        **more,
    )


@dataclass(frozen=True, kw_only=True)
class Predecessor:
    """A stored adapter: its tensors by PEFT's names, and what its products are scaled by."""

    tensors: Mapping[str, Tensor]
    scale: float
