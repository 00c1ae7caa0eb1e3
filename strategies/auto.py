"""The chooser. Its rules, first match wins:

1. The live version is a bank of adapters: mos, for nothing else goes on from one.
2. There are old batches or an anchor with rows: rewarm-replay. Replay in place of new rows keeps the old loss near that
   of retraining on everything at a fraction of the compute (Ibrahim et al. 2024, arXiv 2403.08763, Tables 2 and 4: 5 %
   of replay takes away 0.19 to 0.21 of 0.23 to 0.27 of forgetting).
3. Otherwise naive: there is nothing to protect and nothing to replay.

Screws that the user turned hold whatever is chosen. retrain is never chosen: k increments cost k(k+1)/2 units of
compute instead of k (METHODS 1.7).
"""

from __future__ import annotations

from dataclasses import dataclass

from strategies import planning
from strategies.contract import Explained, Plan, Signals
from strategies.named import MOS, NAIVE, REWARM_REPLAY, Named
from strategies.plan import BANK
from strategies.planning import compose, resolve, share
from strategies.planning.stage import everything
from strategies.settings import Json, TrainingSettings

NAME = "auto"
SUMMARY = "choose a strategy from what was measured, and say why"
SOURCES = ("arXiv 2403.08763",)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A strategy, why, and why not the others."""

    strategy: Named
    reason: str
    alternatives: dict[str, str]


def plan(signals: Signals, turned: Json) -> Plan:
    """The plan of what was chosen, with the reason in front."""
    choice = choose(signals)
    composition = choice.strategy.composition.model_copy(update=turned)
    made = planning.plan(signals, composition, strategy=choice.strategy.name)
    chosen = Explained(value=choice.strategy.name, origin=f"auto: {choice.reason}")
    return made.model_copy(
        update={
            "reason": f"{choice.strategy.name}, because {choice.reason}. {made.reason}",
            "values": {**made.values, "strategy": chosen},
        }
    )


def check(turned: Json, training: TrainingSettings) -> None:
    """Refuse turned screws that contradict each other; raises BadPlan."""
    compose.check(REWARM_REPLAY.composition.model_copy(update=turned), training)


def alternatives(signals: Signals) -> list[dict[str, str]]:
    """Strategies that were turned down, each with the reason."""
    return [{"strategy": name, "reason": reason} for name, reason in choose(signals).alternatives.items()]


def choose(signals: Signals) -> Choice:
    """Apply the rules above."""
    if BANK in signals.parent_answer:
        reason = "the live version is a bank of adapters, which goes on with one more"
        return Choice(strategy=MOS, reason=reason, alternatives=_turned_down(signals, MOS))
    old = share.replayable(signals)
    if not old:
        reason = "there is nothing earlier to forget or to replay"
        return Choice(strategy=NAIVE, reason=reason, alternatives=_turned_down(signals, NAIVE))
    what = "the anchor" if signals.anchor in old else f"{len(old)} earlier batches"
    reason = f"{what} must not be forgotten and can be replayed"
    return Choice(strategy=REWARM_REPLAY, reason=reason, alternatives=_turned_down(signals, REWARM_REPLAY))


def _turned_down(signals: Signals, chosen: Named) -> dict[str, str]:
    new, all_rows = resolve.total_rows(signals.new), resolve.total_rows(everything(signals))
    banked = "it does not go on from a bank of adapters" if chosen is MOS else None
    reasons = {
        "naive": banked or "without replay the loss on what came before rises",
        "rewarm-replay": banked or "there is nothing to replay",
        "half-finetune": banked or "replay keeps more of what came before for the same tokens",
        "data-mixing": "replay's share follows from what was measured; weights of domains pay off over many domains",
        "retrain": f"it would train the base on {all_rows} rows instead of {new}",
    }
    return {name: reason for name, reason in reasons.items() if name != chosen.name}
