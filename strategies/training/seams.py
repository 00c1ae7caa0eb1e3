"""The seams of the loop: what a part of a strategy is told, and what it may read.

A part overrides the hooks it needs; the loop calls only those that were overridden, so an unused seam costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from strategies.inference.precision import Precision
from strategies.settings import Json


@dataclass(kw_only=True)
class Run:
    """One run of the loop, as its parts see it. ``parameters`` are those that move, by name.

    ``losses`` measures the model as it is on the ``select`` halves, by eval set; the same model, the same losses.
    """

    model: Any
    precision: Precision
    parameters: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    step: int = 0
    frozen_models: dict[str, Any] = field(default_factory=dict)
    losses: Callable[[], Mapping[str, float]] | None = None


@dataclass(frozen=True, kw_only=True)
class PartState:
    """What a part must remember: JSON values and tensors, everything it drew at random by value."""

    values: Json = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


class Part:
    """A choice on one seam. All hooks are optional."""

    def begin(self, run: Run) -> None:
        """Before the first step of an attempt, with the optimizer made and a checkpoint (if any) restored."""

    def after_step(self, run: Run, step: int) -> None:
        """After optimizer step ``step``; on a GPU even if it later turns out that it could not be applied."""

    def end(self, run: Run) -> None:
        """After the last step, before anything is saved."""

    def state_dict(self) -> PartState:
        """What a checkpoint keeps of this part."""
        return PartState()

    def load_state_dict(self, state: PartState) -> None:
        """Go on from :meth:`state_dict`; called before :meth:`begin`."""


def overrides(part: Part, hook: str) -> bool:
    """Whether ``part`` has a hook of its own."""
    return getattr(type(part), hook) is not getattr(Part, hook)
