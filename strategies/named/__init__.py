"""The named strategies: signals in, plan out. A new one is a file here and a line in :data:`STRATEGIES`."""

from __future__ import annotations

from strategies import compose
from strategies.contract import Plan, Signals
from strategies.errors import BadPlan
from strategies.named import auto
from strategies.named.contract import Strategy
from strategies.named.naive import Naive
from strategies.named.retrain import Retrain
from strategies.named.rewarm_replay import RewarmReplay
from strategies.plan import validate
from strategies.settings import Json, StrategySettings

STRATEGIES: tuple[Strategy, ...] = (auto.Auto(), Naive(), Retrain(), RewarmReplay())
NAMES: tuple[str, ...] = tuple(strategy.name for strategy in STRATEGIES)


def get(name: str) -> Strategy:
    """The strategy of that name."""
    for strategy in STRATEGIES:
        if strategy.name == name:
            return strategy
    raise BadPlan(f"there is no strategy {name}; choose one of {', '.join(NAMES)}")


def plan(signals: Signals, settings: StrategySettings) -> Plan:
    """The plan of the strategy that ``settings`` name; raises BadPlan where there is none."""
    compose.check(settings, signals.training)
    made = get(settings.name).plan(signals, settings)
    validate(made)
    return made


def alternatives(signals: Signals, settings: StrategySettings) -> list[dict[str, str]]:
    """What was turned down and why; nothing where the user named the strategy."""
    return auto.alternatives(signals, settings) if settings.name == auto.Auto.name else []


def describe() -> list[Json]:
    """Name, summary, sources and used settings of every strategy."""
    return [
        {
            "name": strategy.name,
            "summary": strategy.summary,
            "sources": list(strategy.sources),
            "settings": sorted(compose.USES[strategy.name]),
        }
        for strategy in STRATEGIES
    ]


__all__ = ["NAMES", "STRATEGIES", "Strategy", "alternatives", "describe", "get", "plan"]
