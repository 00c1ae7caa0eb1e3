"""What a backtest shows: how far it is, and at its end both policies side by side."""

from __future__ import annotations

from typing import Any

from strategies.settings import Closed


class BacktestEnd(Closed):
    """How a decision ended that made nothing live."""

    decision: int
    result: str
    outcome: str


class BacktestSide(Closed):
    """What one policy came to."""

    version: int | None
    strategies: dict[str, int]
    """Strategy -> decisions that chose it."""
    promoted: int
    refused: int
    inconclusive: int
    failed: int
    ends: tuple[BacktestEnd, ...]
    """Of the decisions that were refused, inconclusive or failed."""
    unscored: str | None
    """Why its last version lacks scores, where measuring it failed."""
    tokens: int
    """That training took, the short runs of searches and probes included."""
    train_seconds: float
    """From start to end of all jobs but those that measure."""
    forgetting: float | None
    """Mean over the older eval sets of how much worse they end than at their best; relative for losses."""


class BacktestSet(Closed):
    """One eval set under the last version of each side."""

    eval_set: str
    metric: str
    recorded: float | None
    replayed: float | None
    change: float | None
    recorded_forgetting: float | None
    replayed_forgetting: float | None


class BacktestRecord(Closed):
    """A replay of a recorded stream under another policy; until ``state`` is done, ask again."""

    stream: str
    scratch: str
    state: str
    changes: dict[str, Any]
    batches: tuple[tuple[int, ...], ...]
    """Batches of the recorded stream in the groups that are retrained on together."""
    done: int
    """Groups whose retrain has ended."""
    decision: int | None
    """The scratch stream's open decision."""
    recorded: BacktestSide | None = None
    replayed: BacktestSide | None = None
    sets: tuple[BacktestSet, ...] = ()
