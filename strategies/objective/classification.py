"""Classes."""

from __future__ import annotations

import torch
from torch import Tensor

from strategies.training.batches import Batch
from strategies.training.objective import Objective
from strategies.training.seams import Run


class Classification(Objective):
    """Cross-entropy over all classes of the head."""

    tasks = ("classification",)

    def loss(self, run: Run, batch: Batch) -> Tensor:
        logits = run.model(**batch.inputs).logits
        return torch.nn.functional.cross_entropy(logits.float(), batch.targets, reduction="sum")
