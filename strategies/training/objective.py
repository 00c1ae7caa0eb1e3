"""The objective seam."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from strategies.settings import Task
from strategies.training.batches import Batch
from strategies.training.materials import Materials
from strategies.training.seams import Part, Run


class Objective(Part):
    """What is minimised, and how the gradient of a whole optimizer step is made.

    A batch knows its weight (how many targets count), so a step's loss is normalised over all its micro-batches
    before the first forward pass, without asking the device. Penalties add to :meth:`loss`; methods that need several
    passes over a step (sharpness-aware, group-robust) wrap :meth:`gradients`.
    """

    tasks: ClassVar[tuple[Task, ...]]
    """Those that it can be minimised for."""

    @classmethod
    def of(cls, settings: Any, materials: Materials) -> Self:
        """As a job's record of it says."""
        return cls()

    def loss(self, run: Run, batch: Batch) -> Tensor:
        """Summed loss of one batch, in float32, of which the weight is ``batch.weight``."""
        raise NotImplementedError

    def gradients(self, run: Run, micro: Sequence[Batch]) -> Tensor:
        """Leave a whole step's gradient in the parameters; returns the step's mean loss, detached, on the device."""
        weight = max(1, sum(batch.weight for batch in micro))
        total: Tensor | None = None
        for batch in micro:
            with run.precision.autocast():
                loss = self.loss(run, batch.to(run.precision.device)) / weight
            loss.backward()  # type: ignore[no-untyped-call]
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total


def token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed cross-entropy in nats; logits (rows, length, vocabulary), targets (rows, length), -100 does not count."""
    flat = logits.flatten(0, 1)
    return torch.nn.functional.cross_entropy(flat.float(), targets.flatten(), reduction="sum")
