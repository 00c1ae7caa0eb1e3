"""What a user sets about the learning rate over a stage."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from strategies.settings.record import Closed


class CosineSettings(Closed):
    """A linear warm-up, then one cosine over the rest of the stage (METHODS 1.2 a)."""

    kind: Literal["cosine"] = Field(
        "cosine", description="a linear warm-up, then one cosine over the rest of the stage"
    )
    warmup_start: Literal["zero", "eta_min", "last_lr"] = Field(
        "zero",
        description="learning rate that the warm-up begins at: 0, the stage's final rate, or the live version's last",
    )


class InfiniteSettings(Closed):
    """A trunk goes on at a constant rate from stage to stage; its annealed copy is the release (METHODS 1.2 b).

    Lengths are shares of a stage's steps, never cumulative (Ibrahim et al. 2024).
    """

    kind: Literal["infinite"] = Field(
        "infinite",
        description="a trunk that never decays, and in each stage its release: an annealed copy, the version",
    )
    cooldown: float = Field(
        0.6, ge=0, le=1, description="share of the steps from the peak rate down to the constant one"
    )
    anneal: float = Field(
        0.14, gt=0, le=1, description="share of the steps from the constant rate down to the final one"
    )
    style: Literal["cosine", "rsqrt", "linear"] = Field("cosine", description="shape of the cooldown")
    timescale: float = Field(10.0, gt=0, description="style rsqrt: how steeply the rate falls at first (kappa)")
    constant_ratio: float = Field(0.55, gt=0, le=1, description="constant rate as a share of the peak rate")

    @model_validator(mode="after")
    def _fits(self) -> InfiniteSettings:
        if self.cooldown + self.anneal > 1:
            raise ValueError("cooldown and anneal are lengths: together they cannot exceed 1")
        return self


ScheduleSettings = Annotated[CosineSettings | InfiniteSettings, Field(discriminator="kind")]
