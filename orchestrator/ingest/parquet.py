"""Rows of a Parquet file, a few hundred at a time, only the columns that are needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.ingest.normalise import Normaliser
from orchestrator.ingest.records import Bad, Refused, Row, escape, excerpt
from orchestrator.settings import IngestLimits

ROWS_AT_ONCE = 256


def rows(path: Path, *, limits: IngestLimits, normaliser: Normaliser) -> Iterator[Row | Bad]:
    """The rows of ``path``, numbered from 1.

    Raises:
        Refused: the file is cut, corrupt, too large, or lacks all columns that are asked for.
    """
    try:
        with pq.ParquetFile(path, memory_map=False, pre_buffer=False, page_checksum_verification=True) as file:
            wanted = _check(file, limits, normaliser)
            yield from _rows(file, wanted, limits)
    except (pa.ArrowException, OSError, OverflowError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise Refused(f"the Parquet file is cut or damaged ({escape(str(error))}); nothing of it was kept") from None


def _check(file: Any, limits: IngestLimits, normaliser: Normaliser) -> list[str]:
    found = list(file.schema_arrow.names)
    normaliser.check(found)
    if file.metadata.num_rows == 0:
        raise Refused("the Parquet file has no rows; nothing was ingested")
    if file.metadata.num_rows > limits.max_rows:
        raise Refused(f"the file has {file.metadata.num_rows} rows, limits.max_rows allows {limits.max_rows}; split it")
    unpacked = sum(file.metadata.row_group(n).total_byte_size for n in range(file.metadata.num_row_groups))
    if unpacked > limits.max_decompressed_bytes:
        raise Refused(f"the file unpacks to {unpacked} bytes, over limits.max_decompressed_bytes; split it")
    return [name for name in found if name in normaliser.columns]


def _rows(file: Any, wanted: list[str], limits: IngestLimits) -> Iterator[Row | Bad]:
    number = 0
    for batch in file.iter_batches(batch_size=ROWS_AT_ONCE, columns=wanted, use_threads=False):
        for row in _values(batch, number + 1, limits):
            number += 1
            yield row
    if number != file.metadata.num_rows:
        raise Refused(
            f"the Parquet file has {number} rows where its footer says {file.metadata.num_rows}; send it again"
        )


def _values(batch: Any, first: int, limits: IngestLimits) -> Iterator[Row | Bad]:
    plain = [_readable(column) for column in batch.columns]
    for offset in range(batch.num_rows):
        yield _row(first + offset, batch.schema.names, [column[offset] for column in plain], limits)


def _readable(column: Any) -> Any:
    """Strings as their bytes, because one that is not UTF-8 must cost its own row only."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type):
        return column.cast(pa.binary())
    if pa.types.is_large_string(column.type):
        return column.cast(pa.large_binary())
    return column


def _row(number: int, names: list[str], scalars: list[Any], limits: IngestLimits) -> Row | Bad:
    fields = {}
    for name, scalar in zip(names, scalars, strict=True):
        try:
            value = scalar.as_py()
            if isinstance(value, bytes):
                if len(value) > limits.max_row_bytes:
                    detail = f"more than limits.max_row_bytes = {limits.max_row_bytes}"
                    return Bad(number, "row too long", detail, excerpt(value))
                value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            return Bad(
                number, "not valid UTF-8", f"column {escape(name, 50)}, byte {error.start}", excerpt(error.object)
            )
        fields[name] = value
    return Row(number, fields)
