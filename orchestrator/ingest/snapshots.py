"""Parquet files of batches and eval sets: their columns, written and read a row group at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from strategies.contract.domains import CLASS_COLUMN
from strategies.settings import Task

MAX_GROUP_ROWS = 10_000
MAX_GROUP_BYTES = 8 << 20
ROWS_AT_ONCE = 64
TASK_COLUMNS: dict[Task, tuple[str, ...]] = {
    "causal-lm": ("text",),
    "sft": ("messages",),
    "classification": ("text", "label"),
}


def batch_schema(task: Task) -> Any:
    """Columns of a batch's snapshot; ``row`` counts from 0 in the order of arrival."""
    return pa.schema(
        [
            pa.field("row", pa.int64(), nullable=False),
            pa.field("digest", pa.string(), nullable=False),
            pa.field("external_id", pa.string()),
            pa.field("split", pa.string(), nullable=False),
            *_task_fields(task),
        ]
    )


def eval_schema(task: Task) -> Any:
    """Columns of an eval set."""
    return pa.schema(
        [
            pa.field("digest", pa.string(), nullable=False),
            pa.field("half", pa.string(), nullable=False),
            *_task_fields(task),
        ]
    )


def stage_schema(task: Task) -> Any:
    """Columns of the working copy that is made while reading, before the split is known."""
    return pa.schema([pa.field("row", pa.int64(), nullable=False), *_task_fields(task)])


def _task_fields(task: Task) -> list[Any]:
    return [
        *(pa.field(name, pa.string(), nullable=False) for name in TASK_COLUMNS[task]),
        pa.field(CLASS_COLUMN, pa.string()),
    ]


class Writer:
    """Writes rows of one schema; a row group ends at 10 000 rows or 8 MB, so memory stays small."""

    def __init__(self, path: Path, schema: Any) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, compression="zstd", compression_level=1)
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self.count = 0

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def add(self, row: dict[str, Any]) -> None:
        """Append a row."""
        self._rows.append(row)
        self._bytes += sum(len(value) for value in row.values() if isinstance(value, str))
        self.count += 1
        if len(self._rows) >= MAX_GROUP_ROWS or self._bytes >= MAX_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows, self._bytes = [], 0


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file that :class:`Writer` wrote."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, use_threads=False):
            yield from batch.to_pylist()


def halves(documents: Iterable[tuple[str | None, str]]) -> dict[str, str]:
    """``judge`` or ``select`` for each digest of ``(label, digest)``.

    Within a label, by digest, they take turns; so both halves are as large as can be, and the first goes to ``judge``,
    without which nothing can be said.
    """
    ordered = sorted(documents, key=lambda document: (document[0] or "", document[1]))
    return {digest: "select" if place % 2 else "judge" for place, (_, digest) in enumerate(ordered)}
