"""What a strategy may know beside its data: what is new in it, what was forgotten, what there is to train on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from strategies.contract.probe import ProbeResult
from strategies.scores import Metric, worsening
from strategies.settings import Closed

Result = Literal["promoted", "repaired", "rolled back", "refused", "inconclusive", "failed"]
"""How a decision ended; ``repaired``: what went live is a repair of its candidate, which the gate had refused."""


class Hardware(Closed):
    """The daemon's machine, and what one job of the stream takes of it."""

    cores: int
    memory_gib: float | None
    gpus: int
    job_cores: int
    job_gpus: int


class Forgotten(Closed):
    """One eval set under the last versions of the live line, on its ``select`` half."""

    eval_set: str
    metric: Metric
    versions: int
    """How many of the last versions were measured on it."""
    best: float
    now: float
    rise: float
    """How much worse now than at best: relative for a loss, absolute for an accuracy; negative: better than ever."""
    tolerance: float
    """What the gate allows in one step."""

    @property
    def is_beyond_half(self) -> bool:
        """Whether it has lost more than half of what the gate allows."""
        return self.rise > self.tolerance / 2

    @property
    def change(self) -> str:
        """How far it is from its best, in words."""
        return f"{self._amount(abs(self.rise))} {'worse' if self.rise > 0 else 'better'}"

    @property
    def allowed(self) -> str:
        """What the gate allows, in words."""
        return self._amount(self.tolerance)

    def _amount(self, value: float) -> str:
        shown = f"{100 * value:.1f}"
        return f"{shown}%" if self.metric == "loss" else f"{shown} points"


def forgetting(eval_set: str, metric: Metric, values: Sequence[float], *, tolerance: float) -> Forgotten:
    """The last of at least two versions' values beside the best of those before it."""
    *before, now = values
    best = max(before) if metric == "accuracy" else min(before)
    return Forgotten(
        eval_set=eval_set,
        metric=metric,
        versions=len(values),
        best=best,
        now=now,
        rise=worsening(metric, best, now),
        tolerance=tolerance,
    )


class EarlierDecision(Closed):
    """How an earlier decision of the stream ended."""

    decision: int
    strategy: str
    choice: str | None = None
    """What auto calls the composition, where auto chose it."""
    replay: float | None
    result: Result
    reason: str
    """The outcome in words; of a version that was rolled back, what the rollback was for."""
    only_forgot: bool = False
    """Whether the gate found its candidate better on the new data and worse on the old."""


class Circumstances(Closed):
    """Measured before the choice, and recorded with it."""

    new_labels: tuple[str, ...] = ()
    """Classes of the new batches that the live version does not know."""
    known_labels: tuple[str, ...] = ()
    """Classes of the new batches that it knows."""
    duplicates: int = 0
    """Documents of the new arrivals that had come before, in the stream or the same arrival, word for word; dropped."""
    near_duplicates: int = 0
    """Documents of the new batches that nearly repeat others; they were kept."""
    arrived: int = 0
    """Documents of the new arrivals, dropped duplicates included."""
    forgotten: tuple[Forgotten, ...] = ()
    decisions: tuple[EarlierDecision, ...] = ()
    """The stream's last decisions, oldest first."""
    hardware: Hardware | None = None
    max_hours: float | None = None
    """The budget of one job."""
    tokens_per_s: float | None = None
    """Of the stream's last train job."""
    probe: ProbeResult | None = None
    """What the probe found, where one was run."""

    @property
    def duplicate_share(self) -> float | None:
        """Share of what arrived that the stream had already."""
        return self.duplicates / self.arrived if self.arrived else None

    @property
    def worst(self) -> Forgotten | None:
        """The eval set that has lost most of what the gate allows."""
        return max(self.forgotten, key=lambda one: one.rise / max(one.tolerance, 1e-9), default=None)
