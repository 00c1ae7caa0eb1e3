"""A moving average of the weights, one update an optimizer step (METHODS 5.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from strategies.settings.consolidation import EmaConsolidation
from strategies.training.materials import Materials
from strategies.training.seams import Part, PartState, Run


class Ema(Part):
    """``average <- decay * average + (1 - decay) * weights`` after each step, from the weights the stage began with.

    The weights that train are never touched before the end; the average is in their dtype and on their device.
    A low-rank adapter's factors are averaged as they are: they are one adapter at different steps, so they share a
    basis, which adapters that began independently do not.
    """

    @classmethod
    def of(cls, settings: EmaConsolidation, materials: Materials) -> Ema:
        """With the decay for so many steps."""
        return cls(settings.decay_over(materials.template.steps))

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self._update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._average: dict[str, Tensor] = {}

    def begin(self, run: Run) -> None:
        """The average starts at the weights, or goes on from a checkpoint."""
        if not self._average:
            self._average = {name: one.detach().clone() for name, one in run.parameters.items()}
        self._average = {name: one.to(run.parameters[name].device) for name, one in self._average.items()}

    def after_step(self, run: Run, step: int) -> None:
        """One update. On a GPU a step that could not be applied counts as one that changed nothing."""
        self._update(list(self._average.values()), [run.parameters[name].detach() for name in self._average], step)

    def end(self, run: Run) -> None:
        """The average becomes the result."""
        with torch.no_grad():
            for name, average in self._average.items():
                run.parameters[name].copy_(average)

    def state_dict(self) -> PartState:
        return PartState(tensors=self._average)

    def load_state_dict(self, state: PartState) -> None:
        # Copied, because training may go back to the same checkpoint twice; on the device if it is known already.
        self._average = {
            name: one.to(self._average[name].device if name in self._average else one.device, copy=True)
            for name, one in state.tensors.items()
        }
