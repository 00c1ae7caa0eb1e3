"""TIES' trim over the flat vector of a whole model, exact, reading one tensor at a time.

The size of the k-th largest magnitude is found by its bits: float32 magnitudes are ordered like their bit patterns, so
one pass counts the upper 16 bits, a second the lower 16 among those that share the right upper half. Exactly
``floor(k * d)`` numbers stay (the reference code of the paper keeps one more); of equal magnitudes at the border the
first ones stay, in the order of names and then of places.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

from strategies.errors import Refused
from strategies.merging.arithmetic import CHUNK

HALF = 1 << 16
Changes = Callable[[str], Tensor]
"""A model's change of a parameter, by name, in float32."""


@dataclass(frozen=True, kw_only=True)
class Trim:
    """What stays of one model: magnitudes above ``border`` (as bits), and of those at it the first ``at_border``."""

    border: int
    at_border: dict[str, int] = field(default_factory=dict)

    def __call__(self, name: str, change: Tensor) -> Tensor:
        """The change with what does not stay set to 0."""
        bits = _bits(change)
        stays = bits > self.border
        equal = torch.nonzero(bits == self.border).flatten()[: self.at_border.get(name, 0)]
        stays[equal] = True
        return torch.where(stays.view_as(change), change, 0.0)


def kept_count(density: float, size: int) -> int:
    """How many of ``size`` numbers stay; the density means what its decimal digits say."""
    return math.floor(Fraction(str(density)) * size)


def find_trim(names: Sequence[str], changes: Changes, density: float) -> Trim:
    """The trim that keeps the ``density`` share of the largest magnitudes over all ``names`` together.

    Raises:
        Refused: a change is not finite.
    """
    upper = torch.zeros(HALF, dtype=torch.int64)
    for name in names:
        change = changes(name)
        if not torch.isfinite(change).all():
            raise Refused(f"tensor {name} is not finite; a model that diverged cannot be merged")
        for bits in _chunks(change):
            upper += torch.bincount(bits >> 16, minlength=HALF)
    wanted = kept_count(density, int(upper.sum()))
    if wanted == 0:
        return Trim(border=(1 << 31) - 1)
    high, above = _border(upper, wanted)
    lower = torch.zeros(HALF, dtype=torch.int64)
    for name in names:
        for bits in _chunks(changes(name)):
            lower += torch.bincount(bits[bits >> 16 == high] & (HALF - 1), minlength=HALF)
    low, more = _border(lower, wanted - above)
    border = (high << 16) | low
    return Trim(border=border, at_border=_first(names, changes, border, wanted - above - more))


def _border(counts: Tensor, wanted: int) -> tuple[int, int]:
    """The bin that holds the ``wanted``-th largest, and how many are in the bins above it."""
    from_top = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, wanted))
    return len(counts) - 1 - place, int(from_top[place - 1]) if place else 0


def _first(names: Sequence[str], changes: Changes, border: int, left: int) -> dict[str, int]:
    """How many numbers at the border stay in each tensor."""
    found: dict[str, int] = {}
    for name in names if border else ():
        if left == 0:
            break
        found[name] = min(left, sum(int((bits == border).sum()) for bits in _chunks(changes(name))))
        left -= found[name]
    return found


def _bits(change: Tensor) -> Tensor:
    return change.reshape(-1).abs().view(torch.int32)


def _chunks(change: Tensor) -> Iterator[Tensor]:
    bits = _bits(change)
    for start in range(0, bits.numel(), CHUNK):
        yield bits[start : start + CHUNK]
