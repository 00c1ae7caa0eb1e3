"""Bounds on what a sample of documents shows: the paired bootstrap for changes, the exact binomial for shares."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
CELLS = 4_000_000
"""Resamples times documents held in memory at a time."""


def resampled_sums(values: Values, *, digests: Sequence[str], resamples: int) -> Values:
    """Column sums of ``values`` (documents × columns) in each resample of the documents: resamples × columns.

    The seed is the hash of the digests, so the same documents are always resampled alike.
    """
    seed = int.from_bytes(hashlib.sha256("\n".join(digests).encode()).digest(), "big")
    generator = np.random.Generator(np.random.PCG64(seed))
    return np.concatenate([counts @ values for counts in _counts(generator, len(values), resamples)])


def _counts(generator: np.random.Generator, documents: int, resamples: int) -> Iterator[Values]:
    """How often each document is drawn in each resample, some resamples at a time."""
    at_once = max(1, CELLS // documents)
    for start in range(0, resamples, at_once):
        rows = min(at_once, resamples - start)
        drawn = generator.integers(documents, size=(rows, documents))
        drawn += np.arange(rows)[:, None] * documents
        yield np.bincount(drawn.ravel(), minlength=rows * documents).reshape(rows, documents).astype(np.float64)


def share_lower_bound(count: int, total: int, confidence: float) -> float:
    """One-sided lower bound of a share (Clopper and Pearson 1934): the smallest share under which ``count`` or more
    of ``total`` has a probability of 1 - ``confidence``. Exact, so a handful of documents proves little.
    """
    if count == 0:
        return 0.0
    low, high = 0.0, count / total
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _at_least(count, total, middle) > 1 - confidence else (middle, high)
    return low


def _at_least(count: int, total: int, share: float) -> float:
    """Probability of ``count`` or more of ``total`` when each comes with probability ``share``."""
    if share <= 0:
        return 0.0
    if share >= 1:
        return 1.0
    ks = np.arange(count, total + 1)
    coefficients = np.array([math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) for k in ks])
    return float(np.exp(coefficients + ks * math.log(share) + (total - ks) * math.log1p(-share)).sum())
