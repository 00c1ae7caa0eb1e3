"""The safetensors format, read and written without torch: eight bytes of header length, JSON, raw bytes.

A model is split into one file a tensor, so that what a training did not change is stored once.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from storage.errors import ArtifactRefused

MAX_HEADER_BYTES = 100_000_000
"""The limit of the reference implementation."""
MAX_TENSOR_NAME = 512

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """Where a tensor's bytes stand: ``start`` and ``length`` count in the whole file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    length: int

    def header(self) -> bytes:
        """What stands before the bytes in a file that holds this tensor alone; the same input gives the same bytes."""
        record = {"dtype": self.dtype, "shape": list(self.shape), "data_offsets": [0, self.length]}
        text = json.dumps(
            {"__metadata__": {"format": "pt"}, self.name: record}, separators=(",", ":"), ensure_ascii=False
        )
        encoded = text.encode()
        encoded += b" " * (-len(encoded) % 8)
        return struct.pack("<Q", len(encoded)) + encoded


def read_header(file: BinaryIO, path: Path) -> list[Tensor]:
    """The tensors of an open file in the order of their bytes; ``path`` is for messages.

    Raises:
        ArtifactRefused: the header is malformed, or its tensors do not fill the file exactly.
    """
    size = path.stat().st_size
    prefix = file.read(8)
    length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise ArtifactRefused(f"{path} is not a safetensors file: its header cannot be {length} bytes long")
    try:
        header = json.loads(file.read(length), object_pairs_hook=_no_repeats)
        tensors = [_tensor(name, record, 8 + length) for name, record in header.items() if name != "__metadata__"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ArtifactRefused(f"{path} has a broken safetensors header ({error}); write it again") from error
    tensors.sort(key=lambda tensor: (tensor.start, tensor.length))
    _check_filled(tensors, 8 + length, size, path)
    return tensors


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _tensor(name: str, record: dict[str, Any], data_start: int) -> Tensor:
    dtype, shape, (start, end) = record["dtype"], record["shape"], record["data_offsets"]
    numbers = [*shape, start, end]
    if any(type(number) is not int or number < 0 for number in numbers) or start > end:
        raise ValueError(f"tensor {name!r} has an impossible shape or place")
    if not 0 < len(name) <= MAX_TENSOR_NAME or not name.isprintable():
        raise ValueError(f"a tensor has the impossible name {name[:80]!r}")
    bits = math.prod(shape) * BITS[dtype]
    if bits != 8 * (end - start):
        raise ValueError(f"tensor {name!r} has {end - start} bytes where its shape needs {bits // 8}")
    return Tensor(name=name, dtype=dtype, shape=tuple(shape), start=data_start + start, length=end - start)


def _check_filled(tensors: list[Tensor], data_start: int, size: int, path: Path) -> None:
    position = data_start
    for tensor in tensors:
        if tensor.start != position:
            raise ArtifactRefused(
                f"{path}: tensor {tensor.name!r} overlaps another or leaves a gap; write the file again"
            )
        position += tensor.length
    if position != size:
        raise ArtifactRefused(f"{path} ends at byte {size} where its tensors end at {position}; write it again")


def read_range(file: BinaryIO, start: int, length: int, chunk_bytes: int) -> Iterator[bytes]:
    """The bytes from ``start``, a chunk at a time.

    Raises:
        ArtifactRefused: the file ends too early.
    """
    file.seek(start)
    while length:
        chunk = file.read(min(chunk_bytes, length))
        if not chunk:
            raise ArtifactRefused("a file became shorter while it was read; wait until nothing writes to it")
        length -= len(chunk)
        yield chunk
