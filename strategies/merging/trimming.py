"""TIES' trim over the flat vector of a whole model, exact, reading one tensor at a time.

Exactly ``floor(k * d)`` numbers stay (the reference code of the paper keeps one more); of equal magnitudes at the
border the first ones stay, in the order of names and then of places.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor

from strategies.merging.ranks import find_places

Changes = Callable[[str], Tensor]
"""A model's change of a parameter, by name, in float32."""


@dataclass(frozen=True, kw_only=True)
class Trim:
    """What stays of one model: magnitudes above ``border``, and of those at it the first ``at_border``."""

    border: float
    at_border: dict[str, int] = field(default_factory=dict)

    def __call__(self, name: str, change: Tensor) -> Tensor:
        """The change with what does not stay set to 0."""
        sizes = change.reshape(-1).abs()
        stays = sizes > self.border
        equal = torch.nonzero(sizes == self.border).flatten()[: self.at_border.get(name, 0)]
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

    def ranks(size: int) -> list[int]:
        kept = kept_count(density, size)
        return [kept] if kept else []

    (places,) = find_places(names, lambda name: [changes(name).abs()], ranks, count=1)
    if not places:
        return Trim(border=math.inf)
    border = places[0]
    return Trim(border=border.value, at_border=_first(names, changes, border.value, border.rank - border.above))


def _first(names: Sequence[str], changes: Changes, border: float, left: int) -> dict[str, int]:
    """How many numbers at the border stay in each tensor."""
    found: dict[str, int] = {}
    for name in names if border else ():
        if left == 0:
            break
        found[name] = min(left, int((changes(name).abs() == border).sum()))
        left -= found[name]
    return found
