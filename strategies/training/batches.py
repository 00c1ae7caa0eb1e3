"""From drawn rows to tensors, prepared ahead of the loop by one thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from strategies.inference.encoding import IGNORED
from strategies.settings import Json, Task
from strategies.training.rows import Rows

AHEAD = 2
"""Optimizer steps prepared ahead."""


class Mixing(Protocol):
    """Which rows each optimizer step takes; state is JSON and exact."""

    def draw(self, step: int) -> list[tuple[str, int]]: ...
    def state_dict(self) -> Json: ...
    def load_state_dict(self, state: Json) -> None: ...


@runtime_checkable
class Observing(Protocol):
    """A mixing whose weights may follow losses: they are shown at step 0 and after every ``observe_every`` steps.

    Nothing is drawn beyond such a step before it. ``observed`` is the last step at which losses were shown.
    """

    observe_every: int | None

    @property
    def observed(self) -> int | None: ...
    def observe(self, step: int, losses: Mapping[str, float]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One forward pass: model inputs, targets, and their weight (targets that count), known without asking a device.

    ``sources`` names the source of each row.
    """

    inputs: dict[str, Tensor]
    targets: Tensor
    weight: int
    tokens: int
    sources: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``, copied without waiting."""
        if device.type == "cpu":
            return self
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        targets = self.targets.to(device, non_blocking=True)
        return replace(self, inputs=inputs, targets=targets)

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU can copy from by itself."""
        inputs = {name: tensor.pin_memory() for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, targets=self.targets.pin_memory())

    def split(self, rows: int) -> list[Batch]:
        """The same rows in order, at most ``rows`` at a time."""
        if len(self) <= rows:
            return [self]
        starts = range(0, len(self), rows)
        return [self._part(slice(start, start + rows), self.tokens * rows // len(self)) for start in starts]

    def _part(self, part: slice, tokens: int) -> Batch:
        targets = self.targets[part]
        inputs = {name: tensor[part] for name, tensor in self.inputs.items()}
        weight = int((targets != IGNORED).sum())
        return Batch(inputs=inputs, targets=targets, weight=weight, tokens=tokens, sources=self.sources[part])


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One optimizer step's rows, their micro-batches, and the mixing state right after the draw."""

    step: int
    rows: list[tuple[str, int]]
    micro: list[Batch]
    mixing: Json


class Collator:
    """Turns rows of the sources into batches of tensors for one task."""

    def __init__(self, sources: Mapping[str, Rows], task: Task, *, pad: int, micro: int) -> None:
        self.sources = sources
        self.task = task
        self.pad = pad
        self.micro = micro

    def __call__(self, drawn: Sequence[tuple[str, int]]) -> list[Batch]:
        """Micro-batches of at most ``micro`` rows, in the order of the draw."""
        parts = [drawn[start : start + self.micro] for start in range(0, len(drawn), self.micro)]
        return [replace(self._batch(part), sources=tuple(name for name, _ in part)) for part in parts]

    def _batch(self, drawn: Sequence[tuple[str, int]]) -> Batch:
        spans = [(self.sources[name], *self.sources[name].bounds[row : row + 2].tolist()) for name, row in drawn]
        width = max(end - start for _, start, end in spans)
        if self.task == "classification":
            return self._classes(drawn, spans, width)
        if self.task == "causal-lm":
            return self._texts(spans, width)
        return self._examples(spans, width)

    def _texts(self, spans: Sequence[tuple[Rows, int, int]], width: int) -> Batch:
        ids = torch.from_numpy(self._padded([(rows.ids[a:b]) for rows, a, b in spans], width, self.pad))
        targets = torch.full_like(ids, IGNORED)
        targets[:, :-1] = ids[:, 1:]
        lengths = [b - a for _, a, b in spans]
        for row, length in enumerate(lengths):
            if length < width:
                targets[row, length - 1 :] = IGNORED
        weight = sum(lengths) - len(lengths)
        return Batch(inputs={"input_ids": ids}, targets=targets, weight=weight, tokens=sum(lengths))

    def _examples(self, spans: Sequence[tuple[Rows, int, int]], width: int) -> Batch:
        ids = self._padded([rows.ids[a:b] for rows, a, b in spans], width, self.pad)
        targets = self._padded([rows.targets[a:b] for rows, a, b in spans if rows.targets is not None], width, IGNORED)
        inputs = {"input_ids": torch.from_numpy(ids)}
        if spans[0][0].positions is not None:
            inputs["position_ids"] = torch.from_numpy(self._positions(spans, width))
        weight = int((targets != IGNORED).sum())
        tokens = sum(b - a for _, a, b in spans)
        return Batch(inputs=inputs, targets=torch.from_numpy(targets), weight=weight, tokens=tokens)

    def _positions(self, spans: Sequence[tuple[Rows, int, int]], width: int) -> np.ndarray:
        # Padding counts from 0 again: a segment of its own that no example sees.
        out = np.empty((len(spans), width), dtype=np.int64)
        for row, (rows, a, b) in enumerate(spans):
            assert rows.positions is not None
            out[row, : b - a] = rows.positions[a:b]
            out[row, b - a :] = np.arange(width - (b - a))
        return out

    def _classes(self, drawn: Sequence[tuple[str, int]], spans: Sequence[tuple[Rows, int, int]], width: int) -> Batch:
        ids = self._padded([rows.ids[a:b] for rows, a, b in spans], width, self.pad)
        seen = self._padded([np.ones(b - a, np.int64) for _, a, b in spans], width, 0)
        labels = [int(self.sources[name].labels[row]) for name, row in drawn]  # type: ignore[index]
        return Batch(
            inputs={"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(seen)},
            targets=torch.tensor(labels),
            weight=sum(label != IGNORED for label in labels),
            tokens=sum(b - a for _, a, b in spans),
        )

    @staticmethod
    def _padded(parts: Sequence[np.ndarray], width: int, fill: int) -> np.ndarray:
        out = np.full((len(parts), width), fill, dtype=np.int64)
        for row, part in enumerate(parts):
            out[row, : len(part)] = part
        return out


class Feed:
    """Draws and collates :data:`AHEAD` steps ahead of the loop, in a thread. Close it, or use it in a ``with``."""

    def __init__(self, mixing: Mixing, collate: Collator, *, first: int, last: int, pin: bool) -> None:
        self._mixing = mixing
        self._collate = collate
        self._steps = range(first, last + 1)
        self._pin = pin
        self._closing = threading.Event()
        self._queue: queue.Queue[Draw | Exception | None] = queue.Queue(AHEAD)
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Draw]:
        while (found := self._queue.get()) is not None:
            if isinstance(found, Exception):
                raise found
            yield found

    def close(self) -> None:
        """End the thread; what it prepared is dropped."""
        self._closing.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def _run(self) -> None:
        try:
            for step in self._steps:
                if self._closing.is_set():
                    return
                self._queue.put(self._draw(step))
            self._queue.put(None)
        except Exception as error:
            self._queue.put(error)

    def _draw(self, step: int) -> Draw:
        rows = self._mixing.draw(step)
        micro = self._collate(rows)
        if self._pin:
            micro = [batch.pinned() for batch in micro]
        return Draw(step=step, rows=rows, micro=micro, mixing=self._mixing.state_dict())
