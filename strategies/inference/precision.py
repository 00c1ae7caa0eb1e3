"""Device and precision, from accelerate: weights and moments in float32, products in bfloat16 where hardware has it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from strategies.errors import Refused

CPU_BF16_PARAMETERS = 1_000_000
"""Below this, casting costs a CPU more than faster products save (measured with AVX512-BF16: 0.7x at 0.15 M, 1.0x at
0.9 M, 1.4x at 5 M)."""


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Where tensors live and how products are computed; ``autocast()`` makes a fresh context."""

    device: torch.device
    bf16: bool
    autocast: Callable[[], AbstractContextManager[Any]]

    def named(self) -> str:
        """Name for the facts of a run."""
        return f"bf16 autocast on {self.device.type}" if self.bf16 else f"fp32 on {self.device.type}"


def device_for(device: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """The device that a job was given."""
    if device == "cuda" and not torch.cuda.is_available():
        raise Refused("the job asks for a GPU but torch sees none; check the driver or set resources.gpus to 0")
    return torch.device("cpu" if device == "cpu" or not torch.cuda.is_available() else "cuda")


def choose(model: nn.Module, bf16: bool | Literal["auto"]) -> Precision:
    """The precision that the settings ask for, on the device where ``model`` is.

    ``auto``: bfloat16 where the hardware multiplies it natively, and, on a CPU, where the model is large enough for the
    products to outweigh the casts.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    device = next(model.parameters()).device
    fast = _pays(model, device) if bf16 == "auto" else bf16
    # accelerate keeps one state a process and refuses another precision; a process may load several models.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if fast else "no")
    return Precision(device=device, bf16=fast, autocast=accelerator.autocast if fast else nullcontext)


def _pays(model: nn.Module, device: torch.device) -> bool:
    if device.type != "cpu":
        return bool(torch.cuda.is_bf16_supported())
    # An adapter does not count, so that a version and its base are always scored alike.
    size = sum(parameter.numel() for name, parameter in model.named_parameters() if "lora_" not in name)
    return size >= CPU_BF16_PARAMETERS and _cpu_has_bf16()


def _cpu_has_bf16() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = set(text.partition("flags")[2].partition("\n")[0].split())
    return bool(flags & {"amx_bf16", "avx512_bf16"})
