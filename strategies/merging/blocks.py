"""Where a parameter stands in a stack of blocks, by its name; and what LiNeS and half-reset make of it. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping

from strategies.errors import Refused
from strategies.selection.roles import BLOCK


def block_of(name: str) -> tuple[str, int] | None:
    """Stack and index of the block that a parameter belongs to; None outside all blocks (embeddings, head, …)."""
    found = BLOCK.match(name)
    return (found.group(1), int(found.group(2))) if found else None


def block_scales(names: Iterable[str], *, alpha: float, beta: float) -> dict[str, float]:
    """LiNeS (Wang et al. 2025, METHODS 7.1): a scale for each parameter.

    ``alpha + beta * (l - 1) / (L - 1)`` for block l of L, counted from 1 in each stack (encoder and decoder apart);
    ``alpha`` outside the blocks; the only block of a stack is its last.

    Raises:
        Refused: no parameter belongs to a block.
    """
    places = {name: block_of(name) for name in names}
    lengths: dict[str, int] = {}
    for place in places.values():
        if place is not None:
            lengths[place[0]] = max(lengths.get(place[0], 0), place[1] + 1)
    if not lengths:
        raise Refused("no parameter name shows a block (such as layers.0.); LiNeS cannot tell how deep one stands")
    return {name: alpha + beta * _depth(place, lengths) for name, place in places.items()}


def _depth(place: tuple[str, int] | None, lengths: Mapping[str, int]) -> float:
    if place is None:
        return 0.0
    stack, index = place
    return index / (lengths[stack] - 1) if lengths[stack] > 1 else 1.0


def draw_half(names: Collection[str], *, seed: str) -> tuple[str, ...]:
    """Half of ``names`` (rounded down), drawn by the hash of seed and name: the same everywhere, in sorted order."""
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    return tuple(sorted(ranked[: len(ranked) // 2]))
