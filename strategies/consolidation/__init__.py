"""How the result joins what came before: one file a consolidation, made here from its settings."""

from __future__ import annotations

from strategies.consolidation.ema import Ema
from strategies.consolidation.keep import Keep
from strategies.consolidation.task_mean import TaskMean
from strategies.contract import TrainTemplate
from strategies.settings.consolidation import EmaConsolidation
from strategies.training.seams import Part


def consolidation_for(template: TrainTemplate) -> Part:
    """The consolidation of a train job that leaves one model; a bank's needs its adapters and is made with them."""
    settings = template.consolidation
    if isinstance(settings, EmaConsolidation):
        return Ema(settings.decay_over(template.steps))
    return Keep()


__all__ = ["Ema", "Keep", "TaskMean", "consolidation_for"]
