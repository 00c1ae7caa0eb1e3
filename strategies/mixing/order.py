"""Orders of rows by hash: the same on every machine and with every library version, so only cursors need storing."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Hashes = NDArray[np.uint64]

_GAMMA = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def hashes(rows: Rows, *parts: object) -> Hashes:
    """A 64-bit hash of every row under the key ``parts`` (splitmix64, seeded with the sha256 of the parts)."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    first, second = (int.from_bytes(digest[at : at + 8], "little") for at in (0, 8))
    value = _mix(rows.astype(np.uint64) * np.uint64(_GAMMA) + np.uint64(first))
    return _mix(value + np.uint64((second | 1) & _MASK))


def _mix(value: Hashes) -> Hashes:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def permuted(rows: Rows, *parts: object) -> Rows:
    """``rows`` in the order of their hashes."""
    return rows[np.argsort(hashes(rows, *parts), kind="stable")]
