"""What the job process leaves: how far it is, and what it made and measured."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from storage.states import JobKind
from strategies.contract.signals import Measured, Parameter
from strategies.scores import Metric
from strategies.settings import Closed

FORMAT = 1
EXIT_CANCELLED = 75
"""The job stopped on request, or because nobody adopted it, after writing a checkpoint."""
EXIT_REFUSED = 65
"""The job refused its input (bad data or settings): trying again cannot help."""


class Progress(Closed):
    """``progress.json``."""

    phase: str
    step: int = 0
    steps: int = 0
    tokens: int = 0
    tokens_per_s: float | None = None
    loss: float | None = None
    lr: float | None = None
    eta_s: float | None = None


class Consumed(Closed):
    """Rows of one snapshot that training took: a bitmap file (bit n is row n, least significant first) and counts."""

    batch: int
    sha256: str
    role: Literal["trained", "replayed"]
    bitmap: str
    documents: int
    samples: int


class Score(Closed):
    """One eval set's score; ``results`` is a Parquet file of per-example results.

    Columns: ``digest``, ``half``, ``tokens`` (answer or text tokens; 1 for classes), ``bytes``, ``loss`` (summed nats),
    and for classification ``label``, ``predicted``, ``correct`` and, for each known_labels entry,
    ``correct_in:<version>``; there ``loss`` is null where the model does not know the label.
    Metric ``loss`` is nats a token over all tokens (lower is better); ``accuracy`` is a share (higher is better).
    """

    eval_set: int
    name: str
    sha256: str
    metric: Metric
    value: float
    value_select: float | None
    value_judge: float | None
    examples: int
    tokens: int
    bytes: int
    results: str
    details: dict[str, Any] = Field(default_factory=dict)


class JobResult(Closed):
    """``result.json``. Paths are relative to the job directory."""

    format: Literal[1] = 1
    kind: JobKind
    artifacts: dict[str, str] = Field(default_factory=dict)
    """Role (``answer/model``, ``answer/adapter``, ``state/trunk``, ``state/optimizer``, …) -> folder under out/."""
    consumed: tuple[Consumed, ...] = ()
    scores: tuple[Score, ...] = ()
    measured: tuple[Measured, ...] = ()
    labels: tuple[str, ...] = ()
    samples: str | None = None
    parameters: tuple[Parameter, ...] = ()
    facts: dict[str, Any] = Field(default_factory=dict)
    """Seeds, library versions, thread count, precision, hashes of the data, losses by step, packing probe …"""
