"""What a user sets about which parameters move."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from strategies.settings import Closed

Level = Literal["category", "model", "layer", "bottom"]
Pairing = Literal["auto", "uniform", "gqa_balanced", "param_aware"]


class AllSettings(Closed):
    """Every parameter moves; with ``training.tuner: lora`` the whole adapter does."""

    kind: Literal["all"] = Field("all", description="every parameter, or with training.tuner lora the whole adapter")


class AdapterSettings(Closed):
    """A new low-rank adapter for each stage, on a base that stays as it is (METHODS 3.6)."""

    kind: Literal["adapter"] = Field(
        "adapter", description="a new adapter for each stage, shaped by training.lora, on a base that stays as it is"
    )
    head_rate: float = Field(
        10.0,
        gt=0,
        description="classification: the head's learning rate as a multiple of the adapter's",
    )
    pooling: Literal["mean", "cls", "last"] = Field(
        "mean",
        description="classification: which last hidden states make a text's feature: the mean of all, the first token's"
        " (cls), or the last one's",
    )


class HalfSettings(Closed):
    """Half fine-tuning: half of the matrices stays as it is for a stage, drawn anew each time (Hui et al. 2024)."""

    kind: Literal["half"] = Field("half", description="half of the matrices; which half is drawn anew for each stage")
    level: Level = Field(
        "category",
        description="what stays: half of each layer's attention, feed-forward and norms (category), any half of all"
        " matrices (model), half of the layers (layer), or the lowest half of them and the embeddings (bottom)",
    )
    pairing: Pairing = Field(
        "auto",
        description="level category, which two attention matrices stay: any (uniform), one of q, o and one of k, v"
        " (gqa_balanced), or those nearest to half of the parameters (param_aware); auto: gqa_balanced where k and v"
        " are smaller than q, else uniform",
    )

    @model_validator(mode="after")
    def _fits(self) -> HalfSettings:
        if self.pairing != "auto" and self.level != "category":
            raise ValueError(f"pairing is used at level category only, not {self.level}; remove it")
        return self


SelectionSettings = Annotated[AllSettings | HalfSettings | AdapterSettings, Field(discriminator="kind")]
