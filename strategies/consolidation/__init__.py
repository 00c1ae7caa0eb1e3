"""How the result joins what came before: one file a consolidation, made here from its settings."""

from __future__ import annotations

from strategies.consolidation.ema import Ema
from strategies.consolidation.keep import Keep
from strategies.contract import TrainTemplate
from strategies.merging.settings import EmaConsolidation
from strategies.training.seams import Part


def consolidation_for(template: TrainTemplate) -> Part:
    """The consolidation of a train job."""
    settings = template.consolidation
    if isinstance(settings, EmaConsolidation):
        return Ema(settings.decay_over(template.steps))
    return Keep()


__all__ = ["Ema", "Keep", "consolidation_for"]
