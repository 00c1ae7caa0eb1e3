"""MinHash signatures and their bands: which documents may be near-duplicates, and whether they are.

Broder 1997; 128 permutations of datasketch's affine32 scheme, named here because stored signatures must stay
comparable. Items are word 5-grams, or character 9-grams where a text has under 50 words, without case and punctuation.
16 bands of 8 rows find a pair of Jaccard similarity 0.8 with probability 1 - (1 - 0.8^8)^16 = 0.95 (0.9: 0.9999); the
signatures then confirm it.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

import numpy as np
from datasketch.minhash import MinHash
from numpy.typing import NDArray

PERMUTATIONS = 128
BANDS = 16
ROWS = PERMUTATIONS // BANDS
SIMILAR = 0.8
SHORT_WORDS = 50
WORD_GRAM = 5
CHARACTER_GRAM = 9
_AT_ONCE = 8192

Signature = NDArray[np.uint32]

_WORD = re.compile(r"\w+")
_PRIME = 0x9E3779B97F4A7C15
_BASE = MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int, scheme="affine32")


def _powers(count: int) -> NDArray[np.uint64]:
    return np.array([pow(_PRIME, power, 1 << 64) for power in range(1, count + 1)], dtype=np.uint64)


_WORD_POWERS = _powers(WORD_GRAM)
_CHARACTER_POWERS = _powers(CHARACTER_GRAM)
_BAND_POWERS = _powers(ROWS)


def signature(text: str) -> Signature:
    """The MinHash signature of ``text``, 128 values."""
    sketch = MinHash(num_perm=PERMUTATIONS, hashfunc=int, permutations=_BASE.permutations, scheme="affine32")
    items = _items(text)
    for start in range(0, len(items), _AT_ONCE):
        sketch.update_batch(items[start : start + _AT_ONCE].tolist())
    values: Signature = sketch.hashvalues
    return values


def bands(values: Signature) -> list[int]:
    """One signed 63-bit value a band; equal values make a candidate pair."""
    with np.errstate(over="ignore"):
        mixed = _mix((values.reshape(BANDS, ROWS).astype(np.uint64) + np.uint64(1)) @ _BAND_POWERS)
    numbers: list[int] = (mixed >> np.uint64(1)).tolist()
    return numbers


def similarity(one: Signature, other: Signature) -> float:
    """Estimated Jaccard similarity: the share of equal values."""
    return float(np.count_nonzero(one == other)) / PERMUTATIONS


def pack(values: Signature) -> bytes:
    """A signature as stored: 128 little-endian 32-bit values."""
    return values.astype("<u4").tobytes()


def unpack(stored: bytes) -> Signature:
    """A stored signature."""
    return np.frombuffer(stored, dtype="<u4").astype(np.uint32)


def _items(text: str) -> NDArray[np.uint32]:
    words = _WORD.findall(text.lower())
    if len(words) >= SHORT_WORDS:
        hashes = np.fromiter((zlib.crc32(word.encode()) for word in words), dtype=np.uint64, count=len(words))
        return _grams(hashes, _WORD_POWERS)
    plain = " ".join(words) or " ".join(text.split())
    return _grams(np.frombuffer(plain.encode("utf-32-le"), dtype="<u4").astype(np.uint64), _CHARACTER_POWERS)


def _grams(codes: NDArray[np.uint64], powers: NDArray[np.uint64]) -> NDArray[np.uint32]:
    """A hash for each run of ``len(powers)`` codes; a shorter text is one run."""
    width = min(len(powers), len(codes))
    sums = np.zeros(len(codes) - width + 1, dtype=np.uint64)
    for offset in range(width):
        sums += (codes[offset : offset + len(sums)] + np.uint64(1)) * powers[offset]
    return np.unique((_mix(sums) >> np.uint64(32)).astype(np.uint32))


def _mix(values: NDArray[np.uint64]) -> NDArray[Any]:
    """A fixed bijection that spreads differences over all bits (MurmurHash3's finaliser)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    mixed: NDArray[Any] = values ^ (values >> np.uint64(33))
    return mixed
