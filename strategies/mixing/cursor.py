"""Where one source's stream of rows stands: stored by value, so that a later stage goes on where this one left off."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from strategies.errors import BadState
from strategies.mixing.order import Rows, permuted
from strategies.settings import Json


@dataclass(kw_only=True)
class Cursor:
    """An epoch and its cuts.

    A cut is (order seed, rows taken under it). Each cut orders what the cut before it left, so rows that one stage
    left over can be put in a new order by the next and still none is lost or taken twice.
    """

    source: str
    rows: int
    epoch: int = 0
    cuts: list[tuple[int, int]] = field(default_factory=list)

    @property
    def order(self) -> int:
        """Seed of the order now in force."""
        return self.cuts[-1][0]

    @property
    def position(self) -> int:
        """Rows taken under the order now in force."""
        return self.cuts[-1][1]

    def take(self, count: int) -> None:
        """Move on by ``count`` rows."""
        self.cuts[-1] = (self.order, self.position + count)

    def cut(self, order: int) -> None:
        """Put the rows left of this epoch in another order, unless they are in it already."""
        if not self.cuts or self.order != order:
            self.cuts.append((order, 0))

    def next_epoch(self, order: int) -> None:
        """Begin again with all rows."""
        self.epoch, self.cuts = self.epoch + 1, [(order, 0)]

    def ordered(self) -> Rows:
        """Rows of this epoch under the order now in force, those already taken under it included."""
        left = np.arange(self.rows, dtype=np.int64)
        for order, taken in self.cuts[:-1]:
            left = permuted(left, order, self.source, self.epoch)[taken:]
        return permuted(left, self.order, self.source, self.epoch)

    def to_json(self) -> Json:
        return {"rows": self.rows, "epoch": self.epoch, "cuts": [list(cut) for cut in self.cuts]}

    @classmethod
    def from_json(cls, source: str, value: Json) -> Cursor:
        try:
            cuts = [(int(order), int(taken)) for order, taken in value["cuts"]]
            cursor = cls(source=source, rows=int(value["rows"]), epoch=int(value["epoch"]), cuts=cuts)
        except (KeyError, TypeError, ValueError) as error:
            raise BadState(f"the cursor of source {source} cannot be read; start the stage without it") from error
        if not cuts or cursor.rows < 0 or cursor.epoch < 0 or sum(taken for _, taken in cuts) > cursor.rows:
            raise BadState(f"the cursor of source {source} is out of range; start the stage without it")
        return cursor
