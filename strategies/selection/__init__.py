"""Which parameters move: all of them, half of them, a low-rank adapter, or a head."""

from __future__ import annotations

from strategies.contract import AdapterSelection, FullSelection, HalfSelection, LoraSelection, Selection
from strategies.settings import LoraSettings, TrainingSettings


def from_training(training: TrainingSettings) -> Selection:
    """The selection that the stream's training settings ask for."""
    return LoraSelection(lora=training.lora) if training.tuner == "lora" else FullSelection()


def extent(selection: Selection) -> LoraSettings | None:
    """All that may ever move: None for every parameter, else the adapter's settings (and a classifier's head)."""
    return selection.lora if isinstance(selection, LoraSelection | HalfSelection | AdapterSelection) else None


__all__ = ["extent", "from_training"]
