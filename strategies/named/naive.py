"""Plain continued fine-tuning on the new data alone: the baseline that forgets."""

from __future__ import annotations

from strategies.contract import Plan, Signals
from strategies.named import single
from strategies.settings import StrategySettings


class Naive:
    """From the live model, one cosine over the new rows, fresh optimizer, no replay."""

    name = "naive"
    summary = "fine-tune the live model on the new data alone; nothing guards what it knew"
    sources: tuple[str, ...] = ()

    def plan(self, signals: Signals, settings: StrategySettings) -> Plan:
        values = single.values(signals, strategy=self.name, sources=signals.new)
        reason = f"Fine-tunes the live model for {values['steps'].value} steps on the new data alone."
        return single.plan(signals, init="@live/answer/model", sources=signals.new, values=values, reason=reason)
