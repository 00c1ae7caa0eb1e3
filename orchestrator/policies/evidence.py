"""What the gate looks at: per-document results of the candidate and of the versions that it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from strategies.scores import Metric

Values = NDArray[np.float64]
Role = Literal["new", "old"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two versions on the same documents, in the order of the set's digests.

    For metric ``loss`` a value is a document's summed nats; for ``accuracy`` 1 where right and 0 where wrong. On older
    class sets both are right or wrong within the classes that ``version`` knew; ``unrestricted`` then holds the plain
    accuracies of the candidate and of ``version``, for the record.
    """

    version: str
    candidate: Values
    reference: Values
    unrestricted: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class SetEvidence:
    """One eval set's ``judge`` half.

    ``weights`` are what a loss is shared over: tokens, or bytes where the versions have different tokenizers; 1 for
    classes. ``best`` compares with the best version that was ever live, where that is another than the live one.
    """

    name: str
    kind: str
    role: Role
    metric: Metric
    digests: tuple[str, ...]
    weights: Values
    live: Comparison
    best: Comparison | None = None

    def __post_init__(self) -> None:
        arrays = [self.weights, self.live.candidate, self.live.reference]
        arrays += [] if self.best is None else [self.best.candidate, self.best.reference]
        if any(array.shape != (len(self.digests),) for array in arrays):
            raise ValueError(
                f"eval set {self.name}: every array needs one value for each of {len(self.digests)} digests"
            )


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything the gate judges a candidate on."""

    candidate: str
    live: str
    sets: tuple[SetEvidence, ...]


def joined(name: str, sets: tuple[SetEvidence, ...]) -> SetEvidence:
    """Several sets as one, document after document; compared with the best only if all have one and the same."""
    first = sets[0]
    bests = [one.best for one in sets]
    same_best = all(best is not None and bests[0] is not None and best.version == bests[0].version for best in bests)
    return SetEvidence(
        name=name,
        kind=first.kind,
        role=first.role,
        metric=first.metric,
        digests=tuple(digest for one in sets for digest in one.digests),
        weights=np.concatenate([one.weights for one in sets]),
        live=_joined([one.live for one in sets]),
        best=_joined([best for best in bests if best is not None]) if same_best else None,
    )


def _joined(comparisons: list[Comparison]) -> Comparison:
    return Comparison(
        version=comparisons[0].version,
        candidate=np.concatenate([one.candidate for one in comparisons]),
        reference=np.concatenate([one.reference for one in comparisons]),
    )


def cleaned(one: SetEvidence) -> SetEvidence:
    """The set without weightless documents, in the order of digests, so that no order of rows changes a verdict."""
    kept = [index for index in np.argsort(np.array(one.digests, dtype=str), kind="stable") if one.weights[index] > 0]
    index = np.array(kept, dtype=np.int64)
    return SetEvidence(
        name=one.name,
        kind=one.kind,
        role=one.role,
        metric=one.metric,
        digests=tuple(one.digests[at] for at in kept),
        weights=one.weights[index],
        live=_taken(one.live, index),
        best=None if one.best is None else _taken(one.best, index),
    )


def _taken(comparison: Comparison, index: NDArray[np.int64]) -> Comparison:
    return Comparison(
        version=comparison.version,
        candidate=comparison.candidate[index],
        reference=comparison.reference[index],
        unrestricted=comparison.unrestricted,
    )
