"""Signals to plan from, with defaults that each test changes."""

from typing import Any

from strategies import choice
from strategies.contract import Plan, Signals, SourceFacts
from strategies.choice import StrategySettings
from strategies.settings import Json, TrainingSettings

TRUNK = ("state/trunk", "state/optimizer", "state/mixing")


def source(
    name: str, rows: int = 1600, loss: float | None = 3.0, seen_rows: int = 0, tokens: int = 1000
) -> SourceFacts:
    return SourceFacts(
        name=name, batch=1, documents=rows, tokens=tokens, rows=rows, loss=loss, seen_rows=seen_rows
    )  # fmt: skip


def signals(training: Json | None = None, **changes: Any) -> Signals:
    """One new batch, two old ones and an anchor, all of equal loss."""
    plain: Json = {
        "task": "causal-lm",
        "new": (source("batch-3"),),
        "old": (source("batch-1", 800, seen_rows=700), source("batch-2", 400, seen_rows=400)),
        "anchor": source("anchor", 500, seen_rows=500),
        "parent": "news/2",
    }
    return Signals(training=TrainingSettings(**(training or {})), **{**plain, **changes})


def plan(given: Signals | None = None, name: str = "rewarm-replay", **settings: Any) -> Plan:
    return choice.plan(given or signals(), StrategySettings.model_validate({"name": name, **settings}))


def values(made: Plan) -> Json:
    """What the orchestrator remembers of a plan."""
    return {name: one.value for name, one in made.values.items()}
