"""Merging as arithmetic on single tensors: pure functions, float32 in and out (METHODS 7.1).

Where peft's ``merge_utils`` computes what the paper says it is used: :func:`peft.utils.merge_utils.disjoint_merge`.
Its other pieces differ. ``magnitude_based_pruning`` trims each tensor by itself, TIES one flat vector of the whole
model (see :mod:`strategies.merging.trimming`); ``calculate_majority_sign_mask`` takes + where the sum is 0, TIES the
majority sign of the whole vector; ``random_pruning`` draws from torch's global state, which no record can hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import cast

import numpy as np
import torch
from peft.utils.merge_utils import disjoint_merge
from torch import Tensor

CHUNK = 1 << 24
"""Numbers that are looked at together, so that temporary copies stay small."""


def blended(pivot: Tensor, others: Iterable[tuple[float, Tensor]]) -> Tensor:
    """``pivot + sum of c * (other - pivot)``: any affine combination; numbers that do not change stay bit for bit.

    A single other is interpolated, which is exact at both ends (c = 0 and c = 1).
    """
    terms = iter(others)
    first = next(terms, None)
    if first is None:
        return pivot
    total = torch.lerp(pivot, first[1], first[0])
    for factor, other in terms:
        total.add_(other - pivot, alpha=factor)
    return _signed(total, pivot)


def added(tensor: Tensor, change: Tensor) -> Tensor:
    """``tensor + change``; numbers that do not change stay bit for bit."""
    return _signed(tensor + change, tensor)


def _signed(total: Tensor, before: Tensor) -> Tensor:
    """A sum in which a number that did not change keeps the sign of its zero: -0 plus 0 is +0."""
    return torch.where(total == before, before, total)


def weighted_sum(terms: Iterable[tuple[float, Tensor]]) -> Tensor:
    """``sum of c * tensor``, one tensor at a time."""
    total: Tensor | None = None
    for factor, tensor in terms:
        total = tensor * factor if total is None else total.add_(tensor, alpha=factor)
    assert total is not None, "a sum needs a term"
    return total


def elected_signs(total: Tensor, majority: int) -> Tensor:
    """TIES: the sign of the summed trimmed changes; where they cancel out, the whole model's ``majority`` sign."""
    signs = torch.sign(total)
    return torch.where(signs == 0, float(majority), signs)


def disjoint_mean(trimmed: Sequence[Tensor], signs: Tensor) -> Tensor:
    """TIES: in each place the mean of the changes that are not 0 and have the elected sign; 0 where there are none."""
    stacked = torch.stack(list(trimmed))
    return cast(Tensor, disjoint_merge(stacked, torch.sign(stacked) == signs))


def dropped(change: Tensor, drop: float, *, key: str) -> Tensor:
    """DARE: each number is 0 with chance ``drop``, else divided by ``1 - drop``; the expectation stays.

    The mask is a function of ``key`` alone: Philox counters, whose stream is fixed whatever the library's version.
    """
    if drop == 0:
        return change
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big")
    bits = np.random.Philox(key=seed)
    border = round(drop * 2**32)
    flat = change.reshape(-1).clone()
    for start in range(0, flat.numel(), CHUNK):
        part = flat[start : start + CHUNK]
        drawn = bits.random_raw((len(part) + 1) // 2).view(np.uint32)[: len(part)]
        part.mul_(torch.from_numpy(drawn >= border))
    return flat.div_(1 - drop).view_as(change)


def fisher_mean(terms: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """``sum of F * theta / sum of F`` in each place, of (theta, F) pairs; F is above 0."""
    pivot = terms[0][0]
    weights = weighted_sum((1.0, fisher) for _, fisher in terms)
    moved = torch.zeros_like(pivot)
    for tensor, fisher in terms[1:]:
        moved.addcmul_(fisher, tensor - pivot)
    return added(pivot, moved.div_(weights))


def competing_score(change: Tensor, total: Tensor, *, low: float, high: float, parents: int) -> Tensor:
    """PCB: how a parent's numbers do against each other and beside the other parents' (METHODS 7.2).

    ``exp(n * minmax(|change|)^2) * tanh(change * total)``, divided by ``exp(n)``: a score is only compared with others
    of its parent, and undivided it overflows from 89 parents on.

    Args:
        change: the parent's change, float32.
        total: the sum of all parents' changes, of the same shape.
        low: least magnitude of the clipped change over the whole model.
        high: largest one.
        parents: n.
    """
    sizes = change.abs().clamp_(low, high).sub_(low).div_((high - low) or 1.0)
    return sizes.square_().sub_(1).mul_(parents).exp_().mul_(torch.tanh(change * total))


def clipped(change: Tensor, low: float, high: float) -> Tensor:
    """Magnitudes between ``low`` and ``high``, signs as they were; 0 stays."""
    return change.abs().clamp_(low, high).mul_(torch.sign(change))
