"""Which parameters move, as a user says it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from strategies.settings import Closed


class AllSettings(Closed):
    """All that the tuner has: every parameter, or the whole adapter."""

    kind: Literal["all"] = Field("all", description="every parameter, or the whole adapter where the tuner is lora")


class HalfSettings(Closed):
    """Half fine-tuning (Hui et al. 2025; METHODS 2.2): half of the matrices stay as they are for a stage."""

    kind: Literal["half"] = Field("half", description="half of the matrices, drawn anew for each stage")
    level: Literal["category", "model", "layer", "bottom"] = Field(
        "category", description="what half is taken of: each category, all matrices, the layers, or the upper layers"
    )
    pairing: Literal["auto", "uniform", "gqa_balanced", "param_aware"] = Field(
        "auto", description="how two of four attention matrices are drawn; auto: balanced for grouped-query attention"
    )
