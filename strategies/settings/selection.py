"""What a user sets about which parameters move."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from strategies.settings import Closed

Level = Literal["category", "model", "layer", "bottom"]
Pairing = Literal["auto", "uniform", "gqa_balanced", "param_aware"]


class AllSettings(Closed):
    """All that the tuner has: every parameter, or the whole adapter."""

    kind: Literal["all"] = Field("all", description="every parameter, or the whole adapter where the tuner is lora")


class AdapterSettings(Closed):
    """A low-rank adapter of its own for each stage, on a base that stays (METHODS 3.6); ``training.lora`` shapes it."""

    kind: Literal["adapter"] = Field(
        "adapter", description="an adapter of its own for each stage, on a base that stays; shaped by training.lora"
    )
    head_rate: float = Field(
        10.0,
        gt=0,
        description="classification: the head's learning rate over the adapter's; the source's 0.1 is of plain descent"
        " at 0.03, and AdamW's steps do not grow with the gradient",
    )
    pooling: Literal["mean", "cls", "last"] = Field(
        "mean", description="classification: which hidden states make a text's feature: all, the first, or the last"
    )


class HalfSettings(Closed):
    """Half fine-tuning (Hui et al. 2024, arXiv 2404.18466): which half of the parameter matrices stays as it is."""

    kind: Literal["half"] = Field("half", description="half of the matrices, drawn anew for each stage")
    level: Level = Field(
        "category",
        description="category: half of each layer's attention, feed-forward and norms; model: any half of all matrices;"
        " layer: half of the layers; bottom: the lowest half of the layers and the embeddings",
    )
    pairing: Pairing = Field(
        "auto",
        description="category: which two attention matrices stay: any (uniform), one of q, o and one of k, v"
        " (gqa_balanced), those nearest to half of the parameters (param_aware);"
        " auto: gqa_balanced where k and v are smaller than q, else uniform",
    )

    @model_validator(mode="after")
    def _fits(self) -> HalfSettings:
        if self.pairing != "auto" and self.level != "category":
            raise ValueError(f"pairing is used at level category only, not {self.level}; remove it")
        return self


SelectionSettings = Annotated[AllSettings | HalfSettings | AdapterSettings, Field(discriminator="kind")]
