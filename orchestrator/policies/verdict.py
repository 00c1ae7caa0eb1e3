"""What the gate says: an outcome, the reason in words, and the numbers it rests on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from strategies.scores import Metric
from strategies.settings import Closed

Outcome = Literal["pass", "fail", "inconclusive"]


class Change(Closed):
    """How much worse the candidate is than ``against``: relative rise of the loss, or fall of the accuracy.

    Negative is better. ``lower`` and ``upper`` are one-sided bounds; ``limit`` is what ``upper`` may reach.
    """

    against: str
    role: Literal["live", "best"]
    candidate: float | None
    reference: float | None
    change: float | None
    lower: float | None
    upper: float | None
    limit: float
    candidate_unrestricted: float | None = None
    reference_unrestricted: float | None = None
    outcome: Outcome
    reason: str


class Flip(Closed):
    """A document that got worse: its loss a token (or 1 right, 0 wrong) under the live version and the candidate."""

    digest: str
    before: float
    after: float


class Flips(Closed):
    """Documents that got worse, and whether they are too many; on new data they are only counted."""

    count: int
    documents: int
    share: float
    lower: float
    limit: float
    examples: tuple[Flip, ...]
    outcome: Outcome
    reason: str


class SetVerdict(Closed):
    """The gate's word on one eval set, or on several small ones judged together (``members``)."""

    name: str
    members: tuple[str, ...]
    kind: str
    role: Literal["new", "old"]
    metric: Metric
    documents: int
    outcome: Outcome
    reason: str
    changes: tuple[Change, ...] = ()
    flips: Flips | None = None


class GateVerdict(Closed):
    """The gate's word on a candidate. ``only_forgot``: better on new data, so a repair of the old may save it."""

    candidate: str
    live: str
    outcome: Outcome
    reason: str
    only_forgot: bool
    sets: tuple[SetVerdict, ...]


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """Fail if anything fails, else inconclusive if anything is, else pass."""
    found = set(outcomes)
    if "fail" in found:
        return "fail"
    return "inconclusive" if "inconclusive" in found else "pass"
