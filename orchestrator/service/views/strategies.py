"""Strategies as they are shown: what each is composed of, and where it comes from."""

from __future__ import annotations

from orchestrator.errors import NotFound
from orchestrator.service.records import StrategyRecord
from strategies.chooser import choice


def list_strategies() -> list[StrategyRecord]:
    """Every strategy that a stream can name, the chooser first."""
    return [StrategyRecord.model_validate(one) for one in choice.describe()]


def show_strategy(name: str) -> StrategyRecord:
    """One strategy.

    Raises:
        NotFound: no such strategy.
    """
    for one in list_strategies():
        if one.name == name:
            return one
    raise NotFound(f"there is no strategy {name!r}; choose one of {', '.join(choice.NAMES)}")
