"""Bytes out of a file: what it is by its first bytes, unpacked, decoded to UTF-8, under a cap, in small blocks.

The content decides, not the name: gzip without ``.gz`` is unpacked, plain text named ``.gz`` is read as it is.
A container that is cut, corrupt or followed by garbage refuses the whole file; archives are not opened.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from orchestrator.ingest.records import Refused
from orchestrator.settings import IngestLimits

BLOCK_BYTES = 1 << 18
PARQUET = b"PAR1"
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_FOREIGN = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!\x1a\x07": "a rar archive",
    b"BZh91AY&SY": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"ARROW1": "an Arrow file",
    b"\x89HDF\r\n": "an HDF5 file",
    b"%PDF-": "a PDF",
    b"\x7fELF": "a program",
    b"SQLite format 3\x00": "a database",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
}
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A file whose container is known: Parquet is read by its own reader, all else as blocks of bytes."""

    parquet: bool
    head: bytes
    blocks: Iterator[bytes]


def open_container(path: Path, limits: IngestLimits) -> Opened:
    """Open ``path``; nothing but its first block is read yet.

    Raises:
        Refused: the file is empty, too large, damaged at its start, or of a kind that is not read.
    """
    size = path.stat().st_size
    if size > limits.max_file_bytes:
        raise Refused(f"the file has {size} bytes, limits.max_file_bytes allows {limits.max_file_bytes}; split it")
    head = _head(path)
    if head.startswith(PARQUET):
        return Opened(parquet=True, head=head, blocks=iter(()))
    blocks = _capped(_raw_blocks(path, head), limits.max_decompressed_bytes)
    first = next(blocks, b"")
    if not first:
        raise Refused("the file is empty; give one that has documents")
    _refuse_foreign(first)
    return Opened(parquet=False, head=first, blocks=_as_utf8(chain((first,), blocks), first))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(512)


def _packing(head: bytes) -> str | None:
    return next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)


def _refuse_foreign(head: bytes) -> None:
    for magic, name in _FOREIGN.items():
        if head.startswith(magic):
            raise Refused(f"the file is {name}; give JSONL, Parquet, CSV or text, plain or as gz or zst")
    if head[257:262] == b"ustar":
        raise Refused("the file is a tar archive; unpack it and give the files in it")
    if _packing(head) or head.startswith(PARQUET):
        raise Refused("the file is packed twice; unpack it once")


def _raw_blocks(path: Path, head: bytes) -> Iterator[bytes]:
    packing = _packing(head)
    if packing is None:
        with path.open("rb") as file:
            yield from _read(file)
        return
    try:
        with pa.CompressedInputStream(pa.OSFile(str(path), "rb"), packing) as stream:
            yield from _read(stream)
    except (OSError, pa.ArrowException) as error:
        if getattr(error, "errno", None):
            raise
        raise Refused(
            f"the {packing} file is cut or damaged ({error}); nothing of it was kept, send it again"
        ) from None


def _read(stream: IO[bytes] | Any) -> Iterator[bytes]:
    while block := stream.read(BLOCK_BYTES):
        yield block


def _capped(blocks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    total = 0
    for block in blocks:
        total += len(block)
        if total > limit:
            raise Refused(f"the file unpacks to more than limits.max_decompressed_bytes = {limit}; split it")
        yield block


def _as_utf8(blocks: Iterator[bytes], head: bytes) -> Iterator[bytes]:
    """Blocks without byte-order mark; UTF-16 and UTF-32 with a mark become UTF-8."""
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), None)
    if encoding is None:
        yield from blocks
    elif encoding == "utf-8-sig":
        yield next(blocks)[len(codecs.BOM_UTF8) :]
        yield from blocks
    else:
        yield from _transcoded(blocks, encoding)


def _transcoded(blocks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    try:
        for block in blocks:
            yield decoder.decode(block).encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        raise Refused(f"the file is marked as {encoding} but is not ({error}); save it as UTF-8") from None
