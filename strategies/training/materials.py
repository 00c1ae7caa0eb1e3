"""What the parts of a train job are made from, beside their own settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from strategies.contract import TrainTemplate
from strategies.settings import Task
from strategies.training.adapters import Adaptation
from strategies.training.rows import Rows


@dataclass(frozen=True, kw_only=True)
class Materials:
    """The job's template and what was prepared for it."""

    template: TrainTemplate
    task: Task
    rows: Mapping[str, Rows]
    """Encoded rows of each source."""
    labels: tuple[str, ...] = ()
    """The model's classes with those that came new; empty for other tasks."""
    adaptation: Adaptation | None = None
    """The task's adapter and those before it; None where no bank is trained."""
