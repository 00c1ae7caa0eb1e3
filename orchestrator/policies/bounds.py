"""Bounds on what a sample of documents shows: the paired bootstrap for changes, the exact binomial for shares."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

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


def bounds(resampled: Values, *, documents: int, confidence: float) -> tuple[float, float]:
    """One-sided lower and upper bound from the resamples of ``documents`` documents.

    Percentiles, expanded as in Hesterberg 2015 (The American Statistician 69, 371): plain ones are too narrow for few
    documents, by the same measure as a normal quantile is against Student's t.
    """
    expanded = math.sqrt(documents / (documents - 1)) * student_quantile(confidence, documents - 1)
    tail = 1 - NormalDist().cdf(expanded)
    lower, upper = np.quantile(resampled, [tail, 1 - tail])
    return float(lower), float(upper)


def student_quantile(confidence: float, degrees: int) -> float:
    """Quantile of Student's t by Cornish and Fisher's expansion; within 1 % from 3 degrees of freedom on."""
    z = NormalDist().inv_cdf(confidence)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


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
