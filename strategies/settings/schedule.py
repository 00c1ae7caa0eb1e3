"""What a user sets about the learning rate over a stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from strategies.settings.record import Closed


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
