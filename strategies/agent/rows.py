"""Rows of a mixture: token ids cut into windows, and an exact apportionment of each step's rows to the domains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies.errors import Refused
from strategies.mixing.order import permuted

Ids = NDArray[np.int64]
TokenCounts = tuple[NDArray[np.int32], NDArray[np.int32]]
"""Tokens in rising order, and how often each of them is there."""
OTHER = 0
"""The proxy's token for all tokens that have no id of their own."""


class RowDrawer:
    """Draws rows of domains with ``sizes`` rows; what rounding owes a domain at one step is carried to the next."""

    def __init__(self, sizes: Sequence[int], order: str) -> None:
        self._sizes, self._order = sizes, order
        self._owed = np.zeros(len(sizes))
        self._taken = [0] * len(sizes)
        self._orders: dict[int, tuple[int, Ids]] = {}
        self._steps = 0

    def draw(self, mixture: Sequence[float], count: int) -> list[tuple[int, int]]:
        """``count`` pairs of domain and row, mixed; a row comes again only after all others of its domain."""
        self._owed += np.asarray(mixture) * count
        drawn = []
        for _ in range(count):
            domain = int(np.argmax(self._owed))
            self._owed[domain] -= 1
            drawn.append((domain, self._next(domain)))
        self._steps += 1
        return [drawn[at] for at in permuted(np.arange(count), self._order, "step", self._steps).tolist()]

    def _next(self, domain: int) -> int:
        epoch, position = divmod(self._taken[domain], self._sizes[domain])
        self._taken[domain] += 1
        if self._orders.get(domain, (-1, None))[0] != epoch:
            rows = permuted(np.arange(self._sizes[domain]), self._order, domain, epoch)
            self._orders[domain] = (epoch, rows)
        return int(self._orders[domain][1][position])


def frequent(ids: Sequence[Ids], vocabulary: int) -> Ids:
    """The ``vocabulary`` - 1 ids that are most frequent in ``ids``, most frequent first; ties go to the lower id."""
    found, counts = np.unique(np.concatenate(ids), return_counts=True)
    return np.asarray(found[np.argsort(-counts, kind="stable")][: vocabulary - 1], dtype=np.int64)


def compact(ids: Ids, kept: Ids) -> Ids:
    """``ids`` as places in ``kept`` counted from 1, and OTHER where an id was not kept.

    A small vocabulary makes a small model several times faster, and only the rank of mixtures has to carry over.
    """
    places = np.argsort(kept)
    at = np.clip(np.searchsorted(kept[places], ids), 0, len(kept) - 1)
    return np.where(kept[places][at] == ids, places[at] + 1, OTHER)


def windows(ids: Ids, length: int, name: str) -> Tensor:
    """Rows [n, length].

    Raises:
        Refused: there is less than one row.
    """
    count = len(ids) // length
    if count == 0:
        raise Refused(f"domain {name} has {len(ids)} tokens, fewer than a row of {length}: give it more text")
    return torch.from_numpy(ids[: count * length].copy()).view(count, length)


def token_counts(ids: NDArray[np.integer[Any]]) -> TokenCounts:
    """The tokens there are, and how often each is there."""
    tokens, found = np.unique(ids, return_counts=True)
    return tokens.astype(np.int32), found.astype(np.int32)


def similarities(counts: Sequence[TokenCounts], new: Sequence[bool], vocabulary: int) -> list[float]:
    """Cosine of every domain's token frequencies to the mean of the new ones'; 0 where none is ``new``.

    Of all tokens the ``vocabulary`` - 1 most frequent ones count, as those are what a proxy tells apart: that two
    domains have rare tokens does not make them alike.
    """
    if not any(new):
        return [0.0] * len(counts)
    total = np.zeros(max((int(tokens[-1]) + 1 for tokens, _ in counts if len(tokens)), default=0), np.int64)
    for tokens, found in counts:
        total[tokens] += found
    kept = np.argsort(-total, kind="stable")[: vocabulary - 1]
    column = np.full(len(total), -1)
    column[kept] = np.arange(len(kept))
    shares = np.zeros((len(counts), len(kept)))
    for row, (tokens, found) in zip(shares, counts, strict=True):
        there = column[tokens] >= 0
        row[column[tokens[there]]] = found[there] / max(1, found.sum())
    centre = shares[np.asarray(new)].mean(0)
    norms = np.linalg.norm(shares, axis=1) * np.linalg.norm(centre)
    return [float(one) for one in np.clip(shares @ centre / np.maximum(norms, 1e-12), -1, 1)]
