"""Next token, every token."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from strategies.settings import Task
from strategies.training.batches import Batch
from strategies.training.objective import Objective, token_loss
from strategies.training.seams import Run


class CausalLm(Objective):
    """Cross-entropy of the next token; no attention mask, because padding stands after what counts."""

    tasks: ClassVar[tuple[Task, ...]] = ("causal-lm",)

    def loss(self, run: Run, batch: Batch) -> Tensor:
        return token_loss(run.model(**batch.inputs, use_cache=False).logits, batch.targets)
