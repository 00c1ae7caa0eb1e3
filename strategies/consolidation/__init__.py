"""How the result joins what came before: one file a consolidation, listed here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from strategies.consolidation.ema import Ema
from strategies.consolidation.keep import Keep
from strategies.consolidation.task_mean import TaskMean
from strategies.training.materials import Materials
from strategies.training.seams import Part

CONSOLIDATIONS: dict[str, Callable[[Any, Materials], Part]] = {
    "keep": Keep.of,
    "ema": Ema.of,
    "task-mean": TaskMean.of,
}


def consolidation_of(materials: Materials) -> Part:
    """The consolidation that a job's template names."""
    settings = materials.template.consolidation
    return CONSOLIDATIONS[settings.kind](settings, materials)


__all__ = ["CONSOLIDATIONS", "TaskMean", "consolidation_of"]
