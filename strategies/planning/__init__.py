"""From signals and a composition to a plan: one way for every strategy, whatever it is composed of.

Rules: every resolved value stands in ``Plan.values`` with its origin; the number of steps depends on the new rows and
the batch, never on the share of replay (but a trunk catches up on rows that only its last release took); a plan differs
from every refused one; what is drawn at random stands in the plan by value. What cannot be planned raises BadPlan with
the reason.
"""

from __future__ import annotations

from strategies.contract import Plan, Signals
from strategies.contract.graph import MODEL, validate
from strategies.planning import cosine, refusals, trunk
from strategies.settings.composition import Composition
from strategies.settings.schedule import CosineSettings


def plan(signals: Signals, composition: Composition, *, strategy: str) -> Plan:
    """The plan of a composition, under the strategy's name; raises BadPlan where there is none."""
    refusals.check(composition, signals.training, signals.task)
    refusals.check_parent(composition, signals)
    signals = _of_bank(signals) if composition.selection.kind == "adapter" else signals
    signals = _of_base(signals) if composition.start == "base" else signals
    schedule = composition.schedule
    if isinstance(schedule, CosineSettings):
        made = cosine.plan(signals, composition, schedule, strategy=strategy)
    else:
        made = trunk.plan(signals, composition, schedule, strategy=strategy)
    validate(made)
    return made


def _of_bank(signals: Signals) -> Signals:
    """An adapter a stage is low-rank whatever the tuner, and its rate with it."""
    return signals.model_copy(update={"training": signals.training.model_copy(update={"tuner": "lora"})})


def _of_base(signals: Signals) -> Signals:
    """The base is a model alone: no bank or adapter of the live version goes on from it."""
    return signals.model_copy(update={"parent_answer": (MODEL,)})


__all__ = ["plan"]
