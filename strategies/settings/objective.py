"""What a user sets about what is minimised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from strategies.settings.record import Closed


class LocalObjective(Closed):
    """Cross-entropy over the task's own classes, and features that keep apart (METHODS 3.2); classification only."""

    kind: Literal["local"] = Field("local", description="cross-entropy over the task's own classes; other tasks: task")
    orthogonality: float = Field(
        0.1, ge=0, description="weight of the term that keeps a step's features and earlier classes' means apart"
    )
    temperature: float = Field(0.8, gt=0, description="divides the products of features in that term")
    normalise: bool = Field(
        True, description="take features and means at length 1; else the term grows with the square of their length"
    )


class TaskSettings(Closed):
    """What the task says."""

    kind: Literal["task"] = Field("task", description="next token, answer only, or classes, as the task says")


ObjectiveSettings = Annotated[TaskSettings | LocalObjective, Field(discriminator="kind")]
