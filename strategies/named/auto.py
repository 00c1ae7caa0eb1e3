"""The chooser. Its rules, first match wins:

1. Settings of rewarm-replay are given: rewarm-replay, which alone uses them.
2. There are old batches or an anchor with rows: rewarm-replay. Replay in place of new rows keeps the old loss near that
   of retraining on everything at a fraction of the compute (Ibrahim et al. 2024, arXiv 2403.08763, Tables 2 and 4: 5 %
   of replay takes away 0.19 to 0.21 of 0.23 to 0.27 of forgetting).
3. Otherwise naive: there is nothing to protect and nothing to replay.

retrain is never chosen: k increments cost k(k+1)/2 units of compute instead of k (METHODS 1.7).
"""

from __future__ import annotations

from dataclasses import dataclass

from strategies import compose
from strategies.contract import Explained, Plan, Signals
from strategies.named import resolve, share
from strategies.named.contract import Strategy
from strategies.named.naive import Naive
from strategies.named.retrain import everything
from strategies.named.rewarm_replay import RewarmReplay
from strategies.settings import StrategySettings


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A strategy, why, and why not the others."""

    strategy: Strategy
    reason: str
    alternatives: dict[str, str]


class Auto:
    """Chooses one of the others from the signals and says why."""

    name = "auto"
    summary = "choose a strategy from what was measured, and say why"
    sources: tuple[str, ...] = ("arXiv 2403.08763",)

    def plan(self, signals: Signals, settings: StrategySettings) -> Plan:
        choice = choose(signals, settings)
        plan = choice.strategy.plan(signals, settings.model_copy(update={"name": choice.strategy.name}))
        chosen = Explained(value=choice.strategy.name, origin=f"auto: {choice.reason}")
        return plan.model_copy(
            update={
                "reason": f"{choice.strategy.name}, because {choice.reason}. {plan.reason}",
                "values": {**plan.values, "strategy": chosen},
            }
        )


def alternatives(signals: Signals, settings: StrategySettings) -> list[dict[str, str]]:
    """Strategies that auto turned down, each with the reason."""
    turned_down = choose(signals, settings).alternatives
    return [{"strategy": name, "reason": reason} for name, reason in turned_down.items()]


def choose(signals: Signals, settings: StrategySettings) -> Choice:
    """Apply the rules above."""
    asked = sorted(compose.given(settings))
    old = share.replayable(signals)
    if asked:
        reason = f"its setting {asked[0]} is given"
    elif old:
        what = "the anchor" if signals.anchor in old else f"{len(old)} earlier batches"
        reason = f"{what} must not be forgotten and can be replayed"
    else:
        reason = "there is nothing earlier to forget or to replay"
        return Choice(strategy=Naive(), reason=reason, alternatives=_turned_down(signals, "naive"))
    return Choice(strategy=RewarmReplay(), reason=reason, alternatives=_turned_down(signals, "rewarm-replay"))


def _turned_down(signals: Signals, chosen: str) -> dict[str, str]:
    new, all_rows = resolve.total_rows(signals.new), resolve.total_rows(everything(signals))
    reasons = {
        "naive": "without replay the loss on what came before rises",
        "rewarm-replay": "there is nothing to replay",
        "retrain": f"it would train the base on {all_rows} rows instead of {new}",
    }
    return {name: reason for name, reason in reasons.items() if name != chosen}
