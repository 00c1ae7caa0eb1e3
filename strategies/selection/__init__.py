"""Which parameters move: all that the tuner has, a half of it, or an adapter of the stage's own."""

from __future__ import annotations

from strategies.contract import Explained, Signals
from strategies.contract.graph import BANK
from strategies.errors import BadPlan
from strategies.parts import AdapterSelection, FullSelection, HalfSelection, LoraSelection, Selection
from strategies.selection import half
from strategies.settings import TrainingSettings
from strategies.settings.selection import AdapterSettings, AllSettings, HalfSettings


def resolve(
    signals: Signals, settings: AllSettings | HalfSettings | AdapterSettings
) -> tuple[Selection, dict[str, Explained]]:
    """The selection of this stage, drawn by value, and what is worth recording of it."""
    training = signals.training
    if isinstance(settings, AllSettings):
        return _all(training), {}
    if isinstance(settings, AdapterSettings):
        return _adapter(signals, settings)
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
    values = {
        "level": Explained(value=chosen.level, origin="settings"),
        "trainable_share": Explained(value=round(moving, 4), origin="of the blocks' parameters, as drawn"),
    }
    bound = half.new_bytes_bound(signals.parameters, chosen)
    if bound is not None:
        values["new_bytes_bound"] = Explained(
            value=round(bound, 4),
            origin="(embeddings + head + what moves of the blocks) / all, + 0.02",
        )
    return chosen, values


def in_words(selection: Selection, values: dict[str, Explained]) -> str:
    """What stays, as the end of a sentence; nothing where all moves."""
    if isinstance(selection, AdapterSelection):
        start = f", started from {selection.start}," if selection.start else ""
        return f", in adapter {selection.name}{start} while the base stays as it is"
    if not isinstance(selection, HalfSelection):
        return ""
    return f", while {1 - values['trainable_share'].value:.0%} of the blocks stays as it is ({selection.level} level)"


def _all(training: TrainingSettings) -> Selection:
    return LoraSelection(lora=training.lora) if training.tuner == "lora" else FullSelection()


def _adapter(signals: Signals, settings: AdapterSettings) -> tuple[Selection, dict[str, Explained]]:
    """The bank's next adapter, a copy of its last one; t1 where there is no bank yet."""
    before = signals.parent_settings.adapter if BANK in signals.parent_answer else None
    name = f"t{int(before.removeprefix('t')) + 1 if before else 1}"
    origin = f"starts as a copy of {before}" if before else "the bank's first"
    chosen = AdapterSelection(
        name=name,
        start=before,
        lora=signals.training.lora,
        head_rate=settings.head_rate,
        pooling=settings.pooling,
    )
    return chosen, {
        "tuner": Explained(value="lora", origin="an adapter a stage, whatever training.tuner is"),
        "adapter": Explained(value=name, origin=origin),
    }


__all__ = ["in_words", "resolve"]
