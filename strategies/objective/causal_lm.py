"""Next token, every token."""

from __future__ import annotations

from torch import Tensor

from strategies.training.batches import Batch
from strategies.training.objective import Objective, token_loss
from strategies.training.seams import Run


class CausalLm(Objective):
    """Cross-entropy of the next token; no attention mask, because padding stands after what counts."""

    def loss(self, run: Run, batch: Batch) -> Tensor:
        return token_loss(run.model(**batch.inputs, use_cache=False).logits, batch.targets)
