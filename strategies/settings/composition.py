"""The screws of a strategy as a user turns them, and a composition of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from strategies.merging.settings import EmaConsolidation, MergeConsolidation
from strategies.mixing.settings import WeightedSettings
from strategies.parts import KeepConsolidation, LocalObjective, TaskMeanConsolidation
from strategies.selection.settings import AdapterSettings, AllSettings, HalfSettings
from strategies.settings import Closed

# --- mixing: which rows, in which proportion ---------------------------------------------------------------------


class NewSettings(Closed):
    """Rows of the new batches alone."""

    kind: Literal["new"] = Field("new", description="the new batches alone")


class ReplaySettings(Closed):
    """Old rows in place of a share of the new ones, in every step (METHODS 1.4)."""

    kind: Literal["replay"] = Field("replay", description="old rows in place of a share of the new ones, in every step")
    share: float | None = Field(
        None, ge=0, lt=1, description="share of old rows in every step; default: from the measured shift"
    )


class EverythingSettings(Closed):
    """The anchor, all trained batches and the new ones, jointly."""

    kind: Literal["everything"] = Field("everything", description="anchor, trained batches and new ones, jointly")


MixingSettings = Annotated[
    NewSettings | ReplaySettings | EverythingSettings | WeightedSettings, Field(discriminator="kind")
]

# --- selection: which parameters move ----------------------------------------------------------------------------

SelectionSettings = Annotated[AllSettings | HalfSettings | AdapterSettings, Field(discriminator="kind")]

# --- schedule: how fast ------------------------------------------------------------------------------------------


class CosineSettings(Closed):
    """Linear warm-up, then one cosine (METHODS 1.2 a)."""

    kind: Literal["cosine"] = Field("cosine", description="linear warm-up, then one cosine over the stage")
    warmup_start: Literal["zero", "eta_min", "last_lr"] = Field(
        "zero", description="the rate that re-warming begins from"
    )


class InfiniteSettings(Closed):
    """Infinite schedule (Ibrahim et al. 2024): lengths as shares of a stage's steps, never cumulative."""

    kind: Literal["infinite"] = Field("infinite", description="a trunk that never decays, and a release annealed of it")
    cooldown: float = Field(0.6, ge=0, le=1, description="share of steps from peak to constant rate")
    anneal: float = Field(0.14, gt=0, le=1, description="share of steps from constant to final rate")
    style: Literal["cosine", "rsqrt", "linear"] = Field("cosine", description="shape of the cooldown")
    timescale: float = Field(10.0, gt=0, description="kappa of the rsqrt shape")
    constant_ratio: float = Field(0.55, gt=0, le=1, description="constant rate over peak rate")

    @model_validator(mode="after")
    def _fits(self) -> InfiniteSettings:
        if self.cooldown + self.anneal > 1:
            raise ValueError("cooldown and anneal are lengths: together they cannot exceed 1")
        return self


ScheduleSettings = Annotated[CosineSettings | InfiniteSettings, Field(discriminator="kind")]

# --- objective: what is minimised --------------------------------------------------------------------------------


class TaskSettings(Closed):
    """What the task says."""

    kind: Literal["task"] = Field("task", description="next token, answer only, or classes, as the task says")


ObjectiveSettings = Annotated[TaskSettings | LocalObjective, Field(discriminator="kind")]

# --- consolidation: how the result joins what came before --------------------------------------------------------

ConsolidationSettings = Annotated[
    KeepConsolidation | EmaConsolidation | MergeConsolidation | TaskMeanConsolidation, Field(discriminator="kind")
]

# --- together ----------------------------------------------------------------------------------------------------

SCREWS = ("mixing", "selection", "schedule", "objective", "consolidation")


class Composition(Closed):
    """One choice on every screw, and what training starts from."""

    start: Literal["live", "base"] = "live"
    mixing: MixingSettings = NewSettings()
    selection: SelectionSettings = AllSettings()
    schedule: ScheduleSettings = CosineSettings()
    objective: ObjectiveSettings = TaskSettings()
    consolidation: ConsolidationSettings = KeepConsolidation()
    keep_optimizer: bool = False
