"""Which parameters move: all that the tuner has, or a half of it."""

from __future__ import annotations

from strategies.contract import Explained, Signals
from strategies.errors import BadPlan
from strategies.parts import FullSelection, HalfSelection, LoraSelection, Selection
from strategies.selection import half
from strategies.selection.settings import AllSettings, HalfSettings
from strategies.settings import TrainingSettings


def resolve(signals: Signals, settings: AllSettings | HalfSettings) -> tuple[Selection, dict[str, Explained]]:
    """The selection of this stage, drawn by value, and what is worth recording of it."""
    training = signals.training
    if isinstance(settings, AllSettings):
        return _all(training), {}
    if not signals.parameters:
        raise BadPlan("the live model's parameters were not measured; ask for the retrain again")
    chosen = half.choose(
        signals.parameters,
        settings=settings,
        seed=training.seed,
        stage=signals.stage,
        lora=training.lora if training.tuner == "lora" else None,
    )
    moving = half.realised(signals.parameters, chosen)
    return chosen, {
        "level": Explained(value=chosen.level, origin="settings"),
        "trainable_share": Explained(value=round(moving, 4), origin="of the blocks' parameters, as drawn"),
    }


def in_words(selection: Selection, values: dict[str, Explained]) -> str:
    """What stays, as the end of a sentence; nothing where all moves."""
    if not isinstance(selection, HalfSelection):
        return ""
    return f", while {1 - values['trainable_share'].value:.0%} of the blocks stays as it is ({selection.level} level)"


def _all(training: TrainingSettings) -> Selection:
    return LoraSelection(lora=training.lora) if training.tuner == "lora" else FullSelection()


__all__ = ["in_words", "resolve"]
