"""Continual-learning metrics: definitions as in METHODS 9.

``scores[i][j]`` is the score on task j after stage i, both from 0, T stages on T tasks; higher is better (losses go
through :func:`from_losses` first). A cell that was not evaluated is NaN, and a metric that touches one is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from strategies.errors import BadScores

Scores = NDArray[np.float64]
Labels = NDArray[np.generic]
BwtNormaliser = Literal["earlier-tasks", "all-tasks"]
"""What backward transfer is divided by: T-1 (Lopez-Paz and Ranzato 2017), or T (TRACE)."""


def from_losses(losses: ArrayLike) -> Scores:
    """Losses as scores: negated, so that higher is better."""
    return -np.asarray(losses, dtype=np.float64)


def average_performance(scores: ArrayLike) -> float:
    """AP, also OP or ACC: mean over tasks after the last stage."""
    return _mean(_square(scores)[-1])


def average_over_time(scores: ArrayLike) -> float:
    """Ā: after each stage the mean over the tasks seen so far; of these, the mean."""
    matrix = _square(scores)
    return _mean(np.array([_mean(row[: stage + 1]) for stage, row in enumerate(matrix)]))


def backward_transfer(scores: ArrayLike, normaliser: BwtNormaliser = "earlier-tasks") -> float:
    """BWT: how much earlier tasks changed between being learned and the end; negative is forgetting."""
    matrix = _several(scores)
    tasks = len(matrix)
    change = matrix[-1, :-1] - np.diag(matrix)[:-1]
    return _mean(change) * (tasks - 1) / (tasks if normaliser == "all-tasks" else tasks - 1)


def forward_transfer(scores: ArrayLike, initial: ArrayLike) -> float:
    """FWT: how much better each later task was, just before it was learned, than under the initial model."""
    matrix = _several(scores)
    return _mean(np.diag(matrix, k=1) - _of_length(initial, len(matrix))[1:])


def zero_shot_retention(final: ArrayLike, initial: ArrayLike) -> float:
    """Mean change on held-out general benchmarks from the initial model to the last stage."""
    after = _vector(final)
    return _mean(after - _of_length(initial, len(after)))


def forgetting(scores: ArrayLike) -> float:
    """F (max): the best an earlier task ever was before the last stage, less what it is at the end. Can be negative."""
    matrix = _several(scores)
    return _mean(_largest(matrix[:-1, :-1]) - matrix[-1, :-1])


def forgetting_by_task(scores: ArrayLike) -> Scores:
    """F (first), Avalanche's: for each earlier task, what it was when learned less what it is at the end."""
    matrix = _several(scores)
    return _evaluated(np.diag(matrix)[:-1] - matrix[-1, :-1])


def plasticity(scores: ArrayLike) -> float:
    """LA: mean over tasks of the score right after learning the task."""
    return _mean(np.diag(_square(scores)))


def intransigence(scores: ArrayLike, reference: ArrayLike) -> float:
    """Mean lack against a joint or single-task ``reference`` right after learning each task."""
    matrix = _square(scores)
    return _mean(_of_length(reference, len(matrix)) - np.diag(matrix))


def stability_plasticity(scores: ArrayLike) -> float:
    """Harmonic mean of 1 - F (max) and LA, for scores between 0 and 1; a summary of our own."""
    stability, learned = 1 - forgetting(scores), plasticity(scores)
    if stability <= 0 or learned <= 0:
        raise BadScores("the harmonic mean needs 1 - forgetting and plasticity above 0; report them apart")
    return 2 * stability * learned / (stability + learned)


def transfer(scores: ArrayLike) -> float:
    """ZSCL's Transfer: scores before a task was learned, averaged per task, then over the tasks after the first."""
    matrix = _several(scores)
    return _mean(np.array([_mean(matrix[:task, task]) for task in range(1, len(matrix))]))


def average(scores: ArrayLike) -> float:
    """ZSCL's Avg: mean over all stages, averaged per task, then over the tasks."""
    return _mean(_square(scores))


def last(scores: ArrayLike) -> float:
    """ZSCL's Last: mean of the last row, the same number as AP."""
    return average_performance(scores)


@dataclass(frozen=True, kw_only=True)
class Flips:
    """Paired predictions of two releases on the same examples (MUSCLE, arXiv 2407.09435); all are shares.

    ``nfr`` right before and wrong now; ``pfr`` wrong before and right now; ``nf_mc`` wrong now with another answer than
    before; ``btc`` right now among those right before, None where none was.
    """

    nfr: float
    pfr: float
    nf_mc: float
    btc: float | None
    accuracy_before: float
    accuracy_after: float


def flips(labels: ArrayLike, before: ArrayLike, after: ArrayLike) -> Flips:
    """Flips between two releases' predicted classes."""
    truth, old, new = (_predictions(values) for values in (labels, before, after))
    if not len(truth) == len(old) == len(new):
        raise BadScores("flips need both releases' predictions for the same examples; the lengths differ")
    was, now = old == truth, new == truth
    return Flips(
        nfr=float((was & ~now).mean()),
        pfr=float((~was & now).mean()),
        nf_mc=float((~now & (old != new)).mean()),
        btc=float(now[was].mean()) if was.any() else None,
        accuracy_before=float(was.mean()),
        accuracy_after=float(now.mean()),
    )


@dataclass(frozen=True, kw_only=True)
class GenerationFlips:
    """The same for generated answers: shares that fell and rose, and by how much on average where they did."""

    nfr: float
    pfr: float
    mean_regression: float
    mean_gain: float


def generation_flips(before: ArrayLike, after: ArrayLike) -> GenerationFlips:
    """Flips between two releases' scores (higher is better) on the same prompts; an average over none is 0."""
    new = _vector(after)
    change = _evaluated(new - _of_length(before, len(new)))
    worse, better = change < 0, change > 0
    return GenerationFlips(
        nfr=float(worse.mean()),
        pfr=float(better.mean()),
        mean_regression=float(-change[worse].mean()) if worse.any() else 0.0,
        mean_gain=float(change[better].mean()) if better.any() else 0.0,
    )


def _square(scores: ArrayLike) -> Scores:
    matrix = np.asarray(scores, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise BadScores(f"scores of shape {matrix.shape} are not stages × tasks; give one row and column a task")
    return matrix


def _several(scores: ArrayLike) -> Scores:
    matrix = _square(scores)
    if len(matrix) < 2:
        raise BadScores("transfer and forgetting need at least two tasks")
    return matrix


def _vector(values: ArrayLike) -> Scores:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or not len(vector):
        raise BadScores(f"scores of shape {vector.shape} are not a list of numbers")
    return vector


def _of_length(values: ArrayLike, length: int) -> Scores:
    vector = _vector(values)
    if len(vector) != length:
        raise BadScores(f"{len(vector)} scores were given where {length} are needed")
    return vector


def _predictions(values: ArrayLike) -> Labels:
    predictions = np.asarray(values)
    if predictions.ndim != 1 or not len(predictions):
        raise BadScores("labels and predictions are lists of at least one class")
    if predictions.dtype.kind == "f" and np.isnan(predictions).any():
        raise BadScores("a label or prediction is NaN; evaluate it first")
    return predictions


def _evaluated(values: Scores) -> Scores:
    if np.isnan(values).any():
        raise BadScores("a score that the metric needs was not evaluated (NaN); evaluate it first")
    return values


def _mean(values: Scores) -> float:
    return float(_evaluated(values).mean())


def _largest(values: Scores) -> Scores:
    largest: Scores = _evaluated(values).max(axis=0)
    return largest
