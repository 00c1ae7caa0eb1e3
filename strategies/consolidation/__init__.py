"""How the result joins what came before: one file a consolidation, listed here."""

from __future__ import annotations

from strategies.consolidation.keep import Keep
from strategies.consolidation.task_mean import TaskMean
from strategies.training.seams import Part

CONSOLIDATIONS: dict[str, type[Part]] = {"keep": Keep, "task-mean": TaskMean}

__all__ = ["CONSOLIDATIONS", "Keep", "TaskMean"]
