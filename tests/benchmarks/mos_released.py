"""Adapter merging as MOS's released code does it: a comparison only, never a strategy (METHODS 3.4).

The released merge writes in place and is called inside the loop over layers of every forward pass, for every layer each
time. With L layers and a merge after the step, the current adapter keeps (1 - alpha)^(L + 1) of itself in one training
step (0.254 for 12 layers and alpha 0.1, instead of 0.9), and in evaluation the *stored* adapter keeps (1 - alpha)^L a
batch: evaluating twice gives two models. Both are reproduced here, so that a benchmark can show what they cost:

* :class:`Released` is a consolidation for training;
* :func:`merging_in_forward` makes a bank's evaluation rewrite its adapters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from strategies.consolidation.task_mean import TaskMean, pull
from strategies.inference.bank import ClassBank, DomainBank
from strategies.training.seams import Run

BLOCKS = ("encoder.layer", "layers", "h")
"""Where models of transformers keep their blocks."""


class Released(TaskMean):
    """The published training rule: every block's forward pass merges all layers, and so does the end of a step."""

    def begin(self, run: Run) -> None:
        super().begin(run)
        if self.predecessors:
            for block in blocks(run.model):
                block.register_forward_pre_hook(lambda module, inputs: self._pull_all(run))

    def after_step(self, run: Run, step: int) -> None:
        if self.predecessors:
            self._pull_all(run)

    def end(self, run: Run) -> None:
        """Nothing is left to do."""

    @torch.no_grad()
    def _pull_all(self, run: Run) -> None:
        # Through .data, as published: autograd then does not see that what it saved was overwritten.
        for module in self._pairs(run):
            live, *stored = self._adapters(module)
            for parameter, before in zip(live, zip(*stored, strict=True), strict=True):
                pull(parameter.data, list(before), self.settings.alpha)


@contextmanager
def merging_in_forward(bank: ClassBank | DomainBank, *, alpha: float = 0.1) -> Iterator[None]:
    """Let every forward pass of ``bank`` pull each adapter to the mean of those before it, for good.

    All adapters but the first are rewritten once for every block; leaving the context does not bring them back.
    """
    model: Any = bank.body if isinstance(bank, ClassBank) else bank.model
    names = bank.manifest.names
    handles = [
        block.register_forward_pre_hook(lambda module, inputs: _rewrite(model, names, alpha)) for block in blocks(model)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def _rewrite(model: nn.Module, names: tuple[str, ...], alpha: float) -> None:
    tensors: dict[str, Tensor] = dict(model.named_parameters())
    for key in [key for key in tensors if f".{names[0]}." in key and "lora_" in key]:
        row = [tensors[key.replace(f".{names[0]}.", f".{name}.")] for name in names]
        for place in range(1, len(row)):
            pull(row[place].data, [tensor.data for tensor in row[:place]], alpha)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer's blocks, in order."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and name.endswith(BLOCKS):
            return list(module)
    raise ValueError(f"{type(model).__name__} has no list of blocks called {' or '.join(BLOCKS)}")
