"""The rows of a source that mixing draws from: packed token rows, padded examples, or classified texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from strategies.inference.encoding import IGNORED, Encoder, Example, messages_of
from strategies.settings import Task
from strategies.training.data import Documents, Tick
from strategies.training.packing import best_fit

Ids = NDArray[np.int32]
Places = NDArray[np.int64]
_EMPTY: Ids = np.empty(0, np.int32)


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


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Documents of one source as token ids: document d is ``ids[starts[d]:starts[d + 1]]``.

    ``targets`` and ``labels`` are as in :class:`Rows`, ``rows`` and ``size`` as in
    :class:`~strategies.training.data.Documents`.
    """

    ids: Ids
    starts: Places
    rows: Places
    size: int
    targets: Ids | None = None
    labels: Places | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, chosen: NDArray[np.bool_]) -> Encoded:
        """The documents with a flag, in their order."""
        lengths = np.diff(self.starts)
        tokens = np.repeat(chosen, lengths)
        return Encoded(
            ids=self.ids[tokens],
            starts=_bounds(lengths[chosen]),
            rows=self.rows[chosen],
            size=self.size,
            targets=None if self.targets is None else self.targets[tokens],
            labels=None if self.labels is None else self.labels[chosen],
        )


def encode_rows(
    documents: Documents, encoder: Encoder, task: Task, *, packing: bool, labels: Sequence[str] = (), tick: Tick
) -> Rows:
    """Rows of one source for ``task``; ``tick`` is called between chunks and may raise."""
    return lay_out(
        encode(documents, encoder, task, labels=labels, tick=tick), task, encoder.max_length, packing=packing
    )


def encode(documents: Documents, encoder: Encoder, task: Task, *, labels: Sequence[str] = (), tick: Tick) -> Encoded:
    """Documents as training for ``task`` sees them; ``tick`` is called between chunks and may raise."""
    ids, targets, lengths = [_EMPTY], [_EMPTY], []
    for values in documents.chunks("messages" if task == "sft" else "text"):
        tick()
        examples = _examples(values, encoder, task)
        ids.append(_flat([tokens for tokens, _ in examples]))
        targets.append(_flat([wanted for _, wanted in examples]))
        lengths += [len(tokens) for tokens, _ in examples]
    return Encoded(
        ids=np.concatenate(ids),
        starts=_bounds(lengths),
        rows=documents.rows,
        size=documents.size,
        targets=np.concatenate(targets) if task == "sft" else None,
        labels=_classes(documents, labels) if task == "classification" else None,
    )


def lay_out(encoded: Encoded, task: Task, width: int, *, packing: bool) -> Rows:
    """Rows of at most ``width`` tokens: texts joined and cut, examples packed or one a row."""
    if task == "causal-lm":
        return _text_rows(encoded, width)
    if task == "sft" and packing:
        return _packed_rows(encoded, width)
    return Rows(
        ids=encoded.ids,
        targets=encoded.targets,
        labels=encoded.labels,
        bounds=encoded.starts,
        documents=encoded.rows,
        members=np.arange(len(encoded.starts), dtype=np.int64),
        size=encoded.size,
        tokens=len(encoded.ids),
    )


def _examples(values: Sequence[str], encoder: Encoder, task: Task) -> list[Example]:
    """Token ids of documents, and targets where they are not the tokens themselves or the document's class."""
    if task == "sft":
        return encoder.dialogues(messages_of(values))
    texts = encoder.documents(values) if task == "causal-lm" else encoder.classified(values)
    return [(ids, []) for ids in texts]


def _classes(documents: Documents, labels: Sequence[str]) -> Places:
    """The place of each document's class in ``labels``, or -100."""
    place = {label: index for index, label in enumerate(labels)}
    return np.array([place.get(label, IGNORED) for label in documents.column("label")], dtype=np.int64)


def _text_rows(encoded: Encoded, width: int) -> Rows:
    """Documents joined by the end token and cut every ``width`` tokens.

    A last partial row is dropped, unless it is the only one.
    """
    flat, starts = encoded.ids, encoded.starts
    count = len(flat) // width
    bounds = np.arange(count + 1, dtype=np.int64) * width if count else _single(len(flat))
    documents_of, members = _touching(starts, bounds, encoded.rows)
    return Rows(
        ids=flat[: bounds[-1]],
        bounds=bounds,
        documents=documents_of,
        members=members,
        size=encoded.size,
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


def _packed_rows(encoded: Encoded, width: int) -> Rows:
    """Several examples in a row, each of which begins at position 0."""
    lengths = np.diff(encoded.starts).tolist()
    packs = best_fit(lengths, width)
    order = [index for pack in packs for index in pack]
    spans = [slice(*encoded.starts[index : index + 2]) for index in order]
    return Rows(
        ids=_flat([encoded.ids[span] for span in spans]),
        targets=None if encoded.targets is None else _flat([encoded.targets[span] for span in spans]),
        positions=_flat([np.arange(lengths[index]) for index in order]),
        bounds=_bounds([sum(lengths[index] for index in pack) for pack in packs]),
        documents=encoded.rows[order],
        members=_bounds(list(map(len, packs))),
        size=encoded.size,
        tokens=len(encoded.ids),
    )


def _bounds(lengths: Sequence[int] | Places) -> Places:
    """Where parts of these lengths begin, and where the last one ends."""
    return np.cumsum([0, *lengths], dtype=np.int64)


def _flat(parts: Sequence[Sequence[int] | NDArray[np.integer[Any]]]) -> Ids:
    return np.concatenate([_EMPTY, *(np.asarray(part, dtype=np.int32) for part in parts)])
