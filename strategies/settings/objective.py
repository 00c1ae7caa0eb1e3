"""What a user sets about what is minimised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from strategies.settings.record import Closed


class LocalObjective(Closed):
    """Cross-entropy over the task's own classes, and features that keep apart (METHODS 3.2); classification only."""

    kind: Literal["local"] = Field(
        "local", description="classification: cross-entropy over the task's own classes alone"
    )
    orthogonality: float = Field(
        0.1, ge=0, description="weight of the term that keeps a step's features apart from earlier classes' means"
    )
    temperature: float = Field(
        0.8, gt=0, description="temperature of that term, which divides the products of features"
    )
    normalise: bool = Field(
        True,
        description="scale features and means to length 1; otherwise the term grows with the square of their length",
    )


class TaskSettings(Closed):
    """The task's own loss."""

    kind: Literal["task"] = Field(
        "task", description="the task's own loss: of the next token, of the answer's tokens, or of the class"
    )


ObjectiveSettings = Annotated[TaskSettings | LocalObjective, Field(discriminator="kind")]
