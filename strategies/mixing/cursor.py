"""Where one source's stream of rows stands: stored by value, so that a later stage goes on where this one left off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from strategies.errors import BadState
from strategies.mixing.order import Rows, permuted
from strategies.settings import Json

FORMAT = 1
"""Of every mixing state, whichever mixing wrote it."""
SET_ASIDE = "set_aside"
"""Of a mixing state: second cursors, of old sources some rows of which are new."""


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

    @property
    def left(self) -> int:
        """Rows of this epoch that were not taken yet."""
        return self.rows - sum(taken for _, taken in self.cuts)

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
        if not cuts or cursor.rows < 0 or cursor.epoch < 0 or cursor.left < 0:
            raise BadState(f"the cursor of source {source} is out of range; start the stage without it")
        return cursor


def read_cursors(state: Json | None, of: str = "sources") -> dict[str, Cursor]:
    """Cursors of every source in a mixing state, or of those alone whose rows were set aside."""
    if state is None:
        return {}
    if state.get("format") != FORMAT:
        raise BadState(f"mixing state of format {state.get('format')} is unknown; this version reads format {FORMAT}")
    return {name: Cursor.from_json(name, value) for name, value in state.get(of, {}).items()}


def checkpointed(state: Json, settings: Json, rows: Mapping[str, int]) -> dict[str, Cursor]:
    """Cursors of a checkpoint of the same job: the mixing and the number of ``rows`` must be as they were."""
    cursors = read_cursors(state)
    if state.get("settings") != settings:
        raise BadState("the checkpoint was written under another mixing; start the job anew")
    for name, count in rows.items():
        if name not in cursors or cursors[name].rows != count:
            raise BadState(f"source {name} is not as it was at the checkpoint; start the job anew")
    return cursors


def continued(cursor: Cursor | None, source: str, *, rows: int, order: int) -> Cursor:
    """The cursor of an earlier stage, a fresh one, or a new epoch if the number of rows has changed."""
    if cursor is None:
        return Cursor(source=source, rows=rows, cuts=[(order, 0)])
    if cursor.rows == rows:
        return cursor
    renewed = Cursor(source=source, rows=rows, epoch=cursor.epoch)
    renewed.next_epoch(order)
    return renewed
