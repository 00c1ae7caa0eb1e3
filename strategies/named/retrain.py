"""Retraining from the base on everything: the upper bound, and the most expensive."""

from __future__ import annotations

from strategies.contract import Plan, Signals, SourceFacts
from strategies.named import single
from strategies.settings import StrategySettings


class Retrain:
    """From the base model, one cosine over the anchor, all trained batches and the new ones, mixed."""

    name = "retrain"
    summary = "start again from the base model on everything that ever came, and the anchor"
    sources: tuple[str, ...] = ("arXiv 2403.08763: the union baseline",)

    def plan(self, signals: Signals, settings: StrategySettings) -> Plan:
        sources = everything(signals)
        values = single.values(signals, strategy=self.name, sources=sources)
        reason = (
            f"Trains the base model for {values['steps'].value} steps on {len(sources)} sources jointly, "
            f"{values['rows'].value} rows in all."
        )
        return single.plan(signals, init="@base/answer/model", sources=sources, values=values, reason=reason)


def everything(signals: Signals) -> tuple[SourceFacts, ...]:
    """The anchor, the trained batches and the new ones."""
    anchor = () if signals.anchor is None else (signals.anchor,)
    return (*anchor, *signals.old, *signals.new)
