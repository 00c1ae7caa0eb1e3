"""Puts a half selection on a model: what stays gives no gradient and is not in the optimizer (METHODS 2.5).

Of a fused matrix (q, k, v in one tensor) the part that moves becomes a parameter of its own, and the part that stays a
buffer; the module joins them in each forward pass. So nothing of what stays is known to the optimizer: neither weight
decay nor a moment can reach it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from strategies.errors import Refused
from strategies.inference.names import PEFT_PREFIX
from strategies.parts import FrozenSlice, HalfSelection
from strategies.training.seams import Part, Run


def freeze_half(model: Any, selection: HalfSelection) -> None:
    """Everything moves but the tensors, slices and look-up that ``selection`` names; raises Refused for unknown names.

    To be called before the optimizer is made; :class:`PlainNames` gives split tensors their names back.
    """
    model.requires_grad_(True)
    for name in selection.frozen:
        _parameter(model, name).requires_grad_(False)
    for name, kept in selection.slices.items():
        _split(model, name, kept)
    if selection.detach_embeddings:
        model.get_input_embeddings().register_forward_hook(_detached)


def freeze_adapters(model: Any, selection: HalfSelection) -> None:
    """The adapters of the modules that ``selection`` names stay; raises Refused where one has no adapter."""
    waiting = {name.rpartition(".")[0] for name in selection.frozen}
    frozen = set()
    for name, parameter in model.named_parameters():
        module, inside, _ = name.removeprefix(PEFT_PREFIX).partition(".lora_")
        if inside and module in waiting:
            parameter.requires_grad_(False)
            frozen.add(module)
    if frozen != waiting:
        raise Refused(
            f"{min(waiting - frozen)} was chosen to stay but has no adapter; keep lora.target_modules as the parent's"
        )


class PlainNames(Part):
    """After training, tensors that were split are whole again, under the names that the model is saved with."""

    def end(self, run: Run) -> None:
        for module in list(run.model.modules()):
            if parametrize.is_parametrized(module):
                for name in list(module.parametrizations):
                    parametrize.remove_parametrizations(module, name, leave_parametrized=True)


class _Joined(nn.Module):
    """A tensor made of a part that moves and a part that stays; both may be several runs along one dimension."""

    kept: Tensor

    def __init__(self, whole: Tensor, kept: Sequence[FrozenSlice]) -> None:
        super().__init__()
        self.dim = kept[0].dim
        self.runs = _runs(tuple(whole.shape), kept)
        self.register_buffer("kept", self._taken(whole.detach(), stays=True), persistent=False)

    def forward(self, moving: Tensor) -> Tensor:
        parts = {stays: iter(self._parts(tensor, stays)) for stays, tensor in ((True, self.kept), (False, moving))}
        return torch.cat([next(parts[stays]) for stays, _ in self.runs], self.dim)

    def right_inverse(self, whole: Tensor) -> tuple[Tensor]:
        return (self._taken(whole, stays=False),)

    def _parts(self, tensor: Tensor, stays: bool) -> Sequence[Tensor]:
        return torch.split(tensor, [length for mine, length in self.runs if mine == stays], self.dim)

    def _taken(self, whole: Tensor, *, stays: bool) -> Tensor:
        cut = torch.split(whole, [length for _, length in self.runs], self.dim)
        return torch.cat([part for part, (mine, _) in zip(cut, self.runs, strict=True) if mine == stays], self.dim)


def _runs(shape: tuple[int, ...], kept: Sequence[FrozenSlice]) -> list[tuple[bool, int]]:
    """Whether it stays, and how long it is, for each run along the slices' dimension; raises Refused if none moves."""
    dim = kept[0].dim
    length = shape[dim] if dim < len(shape) else 0
    starts = {part.start: part.stop for part in kept}
    edges = sorted({0, length, *starts, *starts.values()})
    runs = [(starts.get(start) == stop, stop - start) for start, stop in pairwise(edges)]
    stays = sum(length for mine, length in runs if mine)
    if any(part.dim != dim for part in kept) or edges[-1] != length or stays != _total(kept) or stays == length:
        raise Refused(f"slices {starts} do not fit a tensor of shape {shape}; measure the model again")
    return runs


def _total(kept: Sequence[FrozenSlice]) -> int:
    return sum(part.stop - part.start for part in kept)


def _split(model: Any, name: str, kept: Sequence[FrozenSlice]) -> None:
    parameter = _parameter(model, name)
    path, _, leaf = name.rpartition(".")
    parametrize.register_parametrization(model.get_submodule(path), leaf, _Joined(parameter, kept))


def _parameter(model: Any, name: str) -> nn.Parameter:
    try:
        found: nn.Parameter = model.get_parameter(name)
    except AttributeError as error:
        raise Refused(f"the selection names {name}, which the model does not have; measure the model again") from error
    return found


def _detached(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output.detach()
