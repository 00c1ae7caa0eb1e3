"""Sources that are drawn from as one: in the order of the hashes of all their rows, epoch after epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from strategies.mixing.cursor import Cursor
from strategies.mixing.order import Hashes, Rows, hashes


class Stream:
    """Takes rows and moves the cursors on; a new epoch of all sources begins when every row was taken.

    One source alone comes in the order of its own cursor. At least one source needs rows. ``most`` bounds the rows of
    a source under one order, those that an earlier job took under it included.
    """

    def __init__(
        self, cursors: Sequence[Cursor], order: int, *, most: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        self._cursors = cursors
        self._order = order
        self._most = most
        self._sizes = np.array([cursor.rows for cursor in cursors], dtype=np.int64)
        self._ends = np.cumsum(self._sizes)
        self._places: Rows | None = None
        self._position = 0

    def take(self, count: int) -> list[tuple[str, int]]:
        """Source and row of the next ``count`` rows."""
        taken: list[tuple[str, int]] = []
        while len(taken) < count:
            taken += self._take(count - len(taken))
        return taken

    def _take(self, count: int) -> list[tuple[str, int]]:
        places = self._places if self._places is not None else self._join()
        if self._position == len(places):
            for cursor in self._cursors:
                cursor.next_epoch(self._order)
            places = self._join()
        found = places[self._position : self._position + count]
        self._position += len(found)
        return self._alone(found) if len(self._cursors) == 1 else self._owned(found)

    def _alone(self, found: Rows) -> list[tuple[str, int]]:
        # Worth its lines: replay and narrow domains take a row or two at a time.
        cursor = self._cursors[0]
        cursor.take(len(found))
        return [(cursor.source, row) for row in found.tolist()]

    def _owned(self, found: Rows) -> list[tuple[str, int]]:
        owners = np.searchsorted(self._ends, found, side="right")
        for index, rows in enumerate(np.bincount(owners, minlength=len(self._cursors)).tolist()):
            self._cursors[index].take(rows)
        starts = self._ends - self._sizes
        return [(self._cursors[i].source, int(p - starts[i])) for i, p in zip(owners.tolist(), found, strict=True)]

    def _join(self) -> Rows:
        """Put the rows that all sources have left of this epoch into one order."""
        places: list[Rows] = [np.empty(0, np.int64)]
        keys: list[Hashes] = [np.empty(0, np.uint64)]
        for cursor, start in zip(self._cursors, (self._ends - self._sizes).tolist(), strict=True):
            left = cursor.ordered()[cursor.position : self._most.get(cursor.source)]
            places.append(left + start)
            keys.append(hashes(left, cursor.order, cursor.source, cursor.epoch))
        self._places = np.concatenate(places)[np.argsort(np.concatenate(keys), kind="stable")]
        self._position = 0
        return self._places
