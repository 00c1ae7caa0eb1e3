"""The k-th largest number of a flat vector that is read one tensor at a time: exact, in two passes.

float32 numbers are ordered like their bits, read as a signed integer (below 0 with all but the sign turned round). One
pass counts the upper 16 bits, a second the lower 16 among those that share the right upper half.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from strategies.errors import Refused
from strategies.merging.arithmetic import CHUNK

HALF = 1 << 16
Vectors = Callable[[str], Iterable[Tensor]]
"""The parts that several flat vectors have under a name, float32, one vector after the other."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """The number at a rank, and how many of its vector are larger."""

    rank: int
    value: float
    above: int


def find_places(
    names: Sequence[str], vectors: Vectors, ranks: Callable[[int], Sequence[int]], *, count: int
) -> list[list[Place]]:
    """For each of ``count`` vectors over all ``names`` together what stands at its ranks; 1 is the largest number.

    Args:
        names: the tensors that a vector consists of.
        vectors: called twice for each name, with the same answer.
        ranks: length of the vectors -> ranks, each from 1 to that length.
        count: how many vectors there are; they are equally long.

    Raises:
        Refused: a number is not finite.
    """
    upper = [torch.zeros(HALF, dtype=torch.int64) for _ in range(count)]
    for name in names:
        for counts, vector in zip(upper, vectors(name), strict=True):
            if not torch.isfinite(vector).all():
                raise Refused(f"tensor {name} is not finite; a model that diverged cannot be merged")
            for keys in _keys(vector):
                counts.add_(torch.bincount((keys >> 16) + HALF // 2, minlength=HALF))
    wanted = ranks(int(upper[0].sum()))
    found = [[_bin(counts, rank) for rank in wanted] for counts in upper]
    lower = [{high: torch.zeros(HALF, dtype=torch.int64) for high, _ in pairs} for pairs in found]
    for name in names if wanted else ():
        for bins, vector in zip(lower, vectors(name), strict=True):
            for keys in _keys(vector):
                for high, counts in bins.items():
                    inside = keys[keys >> 16 == high - HALF // 2]
                    counts.add_(torch.bincount(inside & (HALF - 1), minlength=HALF))
    return [
        [_place(high, above, rank, bins[high]) for rank, (high, above) in zip(wanted, pairs, strict=True)]
        for pairs, bins in zip(found, lower, strict=True)
    ]


def _place(high: int, above: int, rank: int, counts: Tensor) -> Place:
    low, more = _bin(counts, rank - above)
    key = torch.tensor([((high - HALF // 2) << 16) | low], dtype=torch.int32)
    return Place(rank=rank, value=float(_turned(key).view(torch.float32)), above=above + more)


def _bin(counts: Tensor, rank: int) -> tuple[int, int]:
    """The bin that holds the ``rank``-th largest, and how many are in the bins above it."""
    from_top = counts.flip(0).cumsum(0)
    place = int(torch.searchsorted(from_top, rank))
    return len(counts) - 1 - place, int(from_top[place - 1]) if place else 0


def _keys(vector: Tensor) -> Iterator[Tensor]:
    # 0 is added so that -0 and 0 are one number.
    bits = (vector.reshape(-1) + 0.0).view(torch.int32)
    for start in range(0, bits.numel(), CHUNK):
        yield _turned(bits[start : start + CHUNK])


def _turned(bits: Tensor) -> Tensor:
    """Bits to keys, and keys to bits."""
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
