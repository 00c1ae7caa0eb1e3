"""What training took and how it went: consumed rows by source, and a bounded log of losses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from strategies.settings import Json
from strategies.training.rows import Rows

MAX_POINTS = 500


class Ledger:
    """Which rows of which source were trained on, and how often in all."""

    def __init__(self, sources: Mapping[str, Rows]) -> None:
        self.drawn: dict[str, NDArray[np.bool_]] = {
            name: np.zeros(len(rows), np.bool_) for name, rows in sources.items()
        }
        self.samples = dict.fromkeys(sources, 0)

    def mark(self, drawn: Iterable[tuple[str, int]]) -> None:
        """Rows of a step that was applied."""
        for name, row in drawn:
            self.drawn[name][row] = True
            self.samples[name] += 1

    def tensors(self) -> dict[str, Tensor]:
        """A copy of the flags, one tensor a source."""
        return {name: torch.from_numpy(flags.astype(np.uint8)) for name, flags in self.drawn.items()}

    def restore(self, samples: Mapping[str, int], tensors: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`tensors`."""
        self.samples = {name: int(count) for name, count in samples.items()}
        self.drawn = {name: tensor.numpy().astype(np.bool_) for name, tensor in tensors.items()}


def bitmap(flags: NDArray[np.bool_]) -> bytes:
    """One bit a row of the snapshot, least significant first."""
    return np.packbits(flags, bitorder="little").tobytes()


class LossLog:
    """Mean losses of equal stretches of steps, at most :data:`MAX_POINTS` of them."""

    def __init__(self, steps: int) -> None:
        self.stride = max(1, math.ceil(steps / MAX_POINTS))
        self.points: list[tuple[int, float, float]] = []
        self.last: float | None = None
        self._sum = 0.0
        self._count = 0

    def add(self, step: int, loss: float, lr: float) -> None:
        """One step's mean loss and learning rate."""
        self.last = loss
        self._sum += loss
        self._count += 1
        if step % self.stride == 0:
            self.points.append((step, self._sum / self._count, lr))
            self._sum, self._count = 0.0, 0

    def to_json(self) -> Json:
        return {"points": [list(point) for point in self.points], "last": self.last, "open": [self._sum, self._count]}

    def restore(self, value: Json) -> None:
        """Go on from :meth:`to_json`."""
        self.points = [(int(step), float(loss), float(lr)) for step, loss, lr in value["points"]]
        self.last = value["last"]
        self._sum, self._count = float(value["open"][0]), int(value["open"][1])
