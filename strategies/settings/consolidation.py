"""What a user sets about how the result of training joins what came before."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from strategies.settings.merging import GreedySoupMerge, LinesMerge, OneStep, SoupMerge, by_name, goes_back
from strategies.settings.record import Closed


class KeepConsolidation(Closed):
    """The trained weights are the result."""

    kind: Literal["keep"] = Field("keep", description="the trained weights as they are")


class AlignSettings(Closed):
    """After a task the head is trained once more, on features drawn from every class's Gaussian (METHODS 3.2)."""

    epochs: int = Field(30, ge=1, description="passes; each takes one step for every class")
    batches: int = Field(5, ge=1, description="batches of features that are drawn for each class in a pass")
    lr: float = Field(0.005, gt=0, description="peak learning rate of the head; it falls to 0")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of the head's SGD")
    weight_decay: float = Field(5e-4, ge=0, description="weight decay of the head")


LEAST_PROMPTS = 4
"""Of a domain, for a router of language models: half of them make its mean, the others say how far they usually are."""


class RouterSettings(Closed):
    """Which adapter answers a request (METHODS 3.3, 3.6, 3.7); all settings but ``rounds`` are for language models."""

    rounds: int = Field(
        4,
        ge=1,
        description="most times a request is passed on to another adapter; for language models, how many adapters are"
        " asked besides the likeliest",
    )
    prior: Literal["cosine", "gaussian"] = Field(
        "gaussian",
        description="how a prompt is compared with each domain before any adapter is asked: by a Gaussian of the"
        " features of the domain's prompts, or by the cosine to their mean",
    )
    temperature: float | None = Field(
        None, gt=0, description="prior cosine: factor of the cosines; default: the number of domains"
    )
    threshold: float = Field(
        0.0,
        ge=0,
        le=1,
        description="a request that no domain reaches with this probability goes to the base model; 0 leaves that to"
        " the distance alone, for probability is shared out among domains that are alike",
    )
    percentile: float = Field(
        99.0,
        gt=0,
        le=100,
        description="a request that is farther from its domain than this percentage of the domain's own prompts goes"
        " to the base model",
    )
    documents: int = Field(512, ge=8, description="most prompts of a domain that its statistics are made from")


class TaskMeanConsolidation(Closed):
    """A bank: one adapter for each task, pulled towards the mean of the earlier ones (METHODS 3.2, 3.6)."""

    kind: Literal["task-mean"] = Field(
        "task-mean", description="a bank of adapters, each pulled towards the earlier ones"
    )
    alpha: float = Field(
        0.1, ge=0, le=1, description="how far one pull moves the adapter; 0: not at all, 1: onto the mean"
    )
    merge_every: Literal["step", "epoch", "task"] = Field("epoch", description="how often the adapter is pulled")
    scale_alpha_by_lr: bool = Field(
        True,
        description="merge_every step: alpha falls with the learning rate, for a constant pull erases what was learned"
        " as the rate goes to 0",
    )
    space: Literal["auto", "factor", "delta"] = Field(
        "auto",
        description="average the low-rank factors, or their products (delta); auto: products once they differ by gap",
    )
    gap: float = Field(0.1, ge=0, description="space auto: relative difference above which products are averaged")
    covariance: Literal["auto", "full", "diagonal"] = Field(
        "auto", description="covariance in the classes' statistics; auto: diagonal above 1024 dimensions, else full"
    )
    align: AlignSettings | None = Field(
        AlignSettings(), description="classification: training of the head after a task; null: none"
    )
    router: RouterSettings = Field(RouterSettings(), description="which adapter answers a request")


LastStep = Annotated[OneStep | GreedySoupMerge | LinesMerge, Field(discriminator="kind")]
"""Merges that a strategy can end with."""
SIBLINGS = 3


class MergeConsolidation(Closed):
    """The stage trains ``siblings``, models that differ in the order of their rows alone, and merges them at its end.

    Changes are counted from the model that training starts from, which interpolate and lines go back towards. A method
    that averages models takes that model as the second one where there is one sibling alone.
    """

    kind: Literal["merge"] = Field("merge", description="siblings of one start, merged as the stage's last step")
    method: LastStep = Field(SoupMerge(), description="how they are merged")
    siblings: int | None = Field(
        None,
        ge=1,
        le=8,
        description=f"models to train; default: {SIBLINGS}, or 1 where the method scales the change of one model",
    )

    @model_validator(mode="before")
    @classmethod
    def _method_by_name(cls, raw: object) -> object:
        return by_name(raw, "method")

    @model_validator(mode="after")
    def _takes_so_many(self) -> MergeConsolidation:
        if self.scales_one and (self.siblings or 1) > 1:
            raise ValueError(f"{self.method.kind} scales the change of one model; set siblings to 1")
        return self

    @property
    def scales_one(self) -> bool:
        """Whether the method scales the change of one model alone."""
        return goes_back(self.method)

    @property
    def count(self) -> int:
        """How many siblings there are."""
        return self.siblings or (1 if self.scales_one else SIBLINGS)


class EmaConsolidation(Closed):
    """The result is a moving average of the weights over the optimizer steps of this stage.

    The decay is per optimizer step, so it means nothing without the stage's length: 0.9999 over 500 steps moves the
    average 5 % of the way (METHODS 5.2). A schedule that decays the rate already averages; both together lag.
    """

    kind: Literal["ema"] = Field("ema", description="a moving average of the weights over the stage's steps")
    decay: float | None = Field(
        None, ge=0, lt=1, description="share of the average that each step keeps; default: 1 - 1 / (horizon * steps)"
    )
    horizon: float = Field(1.0, gt=0, le=5, description="how far back the average reaches, in stages")

    def decay_over(self, steps: int) -> float:
        """The decay of a stage of ``steps`` optimizer steps."""
        return self.decay if self.decay is not None else max(0.0, 1 - 1 / (self.horizon * steps))


ConsolidationSettings = Annotated[
    KeepConsolidation | EmaConsolidation | MergeConsolidation | TaskMeanConsolidation, Field(discriminator="kind")
]
