"""Device and precision, from accelerate: weights and moments in float32, products in bfloat16 where hardware has it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from strategies.errors import Refused


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Where tensors live and how products are computed; ``autocast()`` makes a fresh context."""

    device: torch.device
    bf16: bool
    autocast: Callable[[], AbstractContextManager[Any]]

    def named(self) -> str:
        """Name for the facts of a run."""
        return f"bf16 autocast on {self.device.type}" if self.bf16 else f"fp32 on {self.device.type}"


def choose(device: Literal["auto", "cpu", "cuda"], bf16: bool | Literal["auto"]) -> Precision:
    """The device that the job was given and the precision its settings ask for."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if device == "cuda" and not torch.cuda.is_available():
        raise Refused("the job asks for a GPU but torch sees none; check the driver or set resources.gpus to 0")
    use_cpu = device == "cpu" or not torch.cuda.is_available()
    fast = (_cpu_has_bf16() if use_cpu else torch.cuda.is_bf16_supported()) if bf16 == "auto" else bf16
    # accelerate keeps one state a process and refuses another precision; a process may load several models.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=use_cpu, mixed_precision="bf16" if fast else "no")
    return Precision(
        device=accelerator.device,
        bf16=fast,
        autocast=accelerator.autocast if fast else nullcontext,
    )


def _cpu_has_bf16() -> bool:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    flags = set(text.partition("flags")[2].partition("\n")[0].split())
    return bool(flags & {"amx_bf16", "avx512_bf16"})
