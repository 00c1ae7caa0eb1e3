"""The rows of a source that mixing draws from: packed token rows, padded examples, or classified texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from strategies.inference.encoding import IGNORED, Encoder, Example
from strategies.settings import Task
from strategies.training.data import Documents, Tick, messages_of
from strategies.training.packing import best_fit

Ids = NDArray[np.int32]
Places = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of one source as flat arrays; row r is ``ids[bounds[r]:bounds[r + 1]]``.

    ``targets`` has for each token what it should predict; ``positions`` restart at 0 for each document of a packed row
    that may not see its neighbours (None: a row is one sequence); ``labels`` has one class a row; ``starts`` are the
    places in ``ids`` where texts begin that were joined and cut without regard to rows. ``documents`` are the
    snapshot's row numbers that row r touches: ``documents[members[r]:members[r + 1]]``.
    """

    ids: Ids
    bounds: Places
    documents: Places
    members: Places
    size: int
    targets: Ids | None = None
    positions: Ids | None = None
    labels: Places | None = None
    starts: Places | None = None
    tokens: int = 0
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def touched(self, drawn: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which of the snapshot's rows were touched by the drawn rows, as one flag each."""
        flags = np.zeros(self.size, dtype=np.bool_)
        flags[self.documents[np.repeat(drawn, np.diff(self.members))]] = True
        return flags


def encode_rows(
    documents: Documents, encoder: Encoder, task: Task, *, packing: bool, labels: Sequence[str] = (), tick: Tick
) -> Rows:
    """Rows of one source for ``task``; ``tick`` is called between chunks and may raise."""
    if task == "causal-lm":
        return _text_rows(documents, encoder, tick)
    if task == "sft":
        return _dialogue_rows(documents, encoder, packing=packing, tick=tick)
    return _class_rows(documents, encoder, labels, tick)


def _text_rows(documents: Documents, encoder: Encoder, tick: Tick) -> Rows:
    """Documents joined by the end token and cut every ``max_length`` tokens.

    A last partial row is dropped, unless it is the only one.
    """
    parts: list[Ids] = []
    lengths: list[int] = []
    for texts in documents.chunks("text"):
        tick()
        encoded = encoder.documents(texts)
        lengths += map(len, encoded)
        parts.append(np.concatenate([np.asarray(ids, dtype=np.int32) for ids in encoded]))
    flat = np.concatenate(parts) if parts else np.empty(0, np.int32)
    width = encoder.max_length
    count = len(flat) // width
    bounds = np.arange(count + 1, dtype=np.int64) * width if count else _single(len(flat))
    starts = np.cumsum([0, *lengths])
    documents_of, members = _touching(starts, bounds, documents.rows)
    return Rows(
        ids=flat[: bounds[-1]],
        bounds=bounds,
        documents=documents_of,
        members=members,
        size=documents.size,
        starts=starts[starts < bounds[-1]],
        tokens=len(flat),
        dropped=len(flat) - int(bounds[-1]),
    )


def _single(tokens: int) -> Places:
    return np.array([0, tokens] if tokens else [0], dtype=np.int64)


def _touching(starts: Places, bounds: Places, rows: Places) -> tuple[Places, Places]:
    """Documents that each row overlaps; document d is tokens ``starts[d]:starts[d + 1]``."""
    first = np.searchsorted(starts, bounds[:-1], side="right") - 1
    last = np.searchsorted(starts, bounds[1:], side="left")
    members = np.concatenate([[0], np.cumsum(last - first)]).astype(np.int64)
    places = np.arange(members[-1]) - np.repeat(members[:-1] - first, last - first)
    return rows[places], members


def _dialogue_rows(documents: Documents, encoder: Encoder, *, packing: bool, tick: Tick) -> Rows:
    examples: list[Example] = []
    for values in documents.chunks("messages"):
        tick()
        examples += encoder.dialogues(messages_of(values))
    lengths = [len(ids) for ids, _ in examples]
    packs = best_fit(lengths, encoder.max_length) if packing else [[index] for index in range(len(examples))]
    order = [index for pack in packs for index in pack]
    return Rows(
        ids=_flat([examples[index][0] for index in order]),
        targets=_flat([examples[index][1] for index in order]),
        positions=_flat([list(range(lengths[index])) for index in order]) if packing else None,
        bounds=np.cumsum([0, *(sum(lengths[index] for index in pack) for pack in packs)]).astype(np.int64),
        documents=documents.rows[order],
        members=np.cumsum([0, *map(len, packs)]).astype(np.int64),
        size=documents.size,
        tokens=sum(lengths),
    )


def _class_rows(documents: Documents, encoder: Encoder, labels: Sequence[str], tick: Tick) -> Rows:
    place = {label: index for index, label in enumerate(labels)}
    encoded: list[list[int]] = []
    for texts in documents.chunks("text"):
        tick()
        encoded += encoder.classified(texts)
    return Rows(
        ids=_flat(encoded),
        bounds=np.cumsum([0, *map(len, encoded)]).astype(np.int64),
        documents=documents.rows,
        members=np.arange(len(encoded) + 1, dtype=np.int64),
        size=documents.size,
        labels=np.array([place.get(label, IGNORED) for label in documents.column("label")], dtype=np.int64),
        tokens=sum(map(len, encoded)),
    )


def _flat(parts: Sequence[Sequence[int]]) -> Ids:
    if not parts:
        return np.empty(0, np.int32)
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts])
