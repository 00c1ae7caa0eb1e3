"""The parts of a plan, seam by seam: mixing, selection, schedule, objective, consolidation; records only, no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from strategies.merging.settings import EmaConsolidation
from strategies.settings import Closed, LoraSettings, Task

Reference = Annotated[str, Field(pattern=r"^@[a-z0-9][a-z0-9_-]*/[a-z0-9_/-]+$")]
"""An artifact of a version or an earlier job: ``@live/answer/model``, ``@base/answer/model``, ``@job/state/trunk``."""


class ReplayMixing(Closed):
    """Which rows each step takes: ``share`` of every step from ``old`` (weighted), the rest from ``new``.

    Exact and deterministic (METHODS 1.4): after n steps of ``batch`` rows, floor(share * batch * n) rows were old.
    ``share`` and the weights are kept as decimal strings, so that the arithmetic is rational and the same everywhere.
    """

    kind: Literal["replay"] = "replay"
    new: tuple[str, ...]
    old: dict[str, str] = Field(default_factory=dict)
    most: dict[str, int] = Field(default_factory=dict)
    """Rows of an epoch that are taken as new of a source which is new in part; it may be an old one besides."""
    share: str = "0"
    batch: int = Field(ge=1)
    order: int
    cursor: Reference | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.new, *self.old)))


class SkillItReweighting(Closed):
    """Skill-It (METHODS 4.3): weights follow what is still hard, through a graph of what helps what.

    ``graph[domain][other]`` is how much training on a domain helps another; a missing edge is 0.
    """

    kind: Literal["skill-it"] = "skill-it"
    eta: float = Field(gt=0)
    window: int = Field(3, ge=1)
    graph: dict[str, dict[str, float]]
    mean_loss: bool = False
    """With target skills only: the mean of the sets' losses takes the place of each one's own."""


class AgentReweighting(Closed):
    """A taught agent proposes the weights; a guard gives up for a constant mixture that promises more (METHODS 4.1).

    The agent is a folder with ``agent.json`` and ``agent.safetensors``; ``sha256`` is the former's, which names the
    latter's.
    """

    kind: Literal["agent"] = "agent"
    folder: str
    sha256: str
    patience: int = Field(3, ge=1)
    """Steps in a row that a constant mixture must promise more before it takes over."""
    found: dict[str, float] = Field(default_factory=dict)
    """A constant mixture that an earlier job of the plan found, for the guard to compare with too; empty: none."""


Reweighting = Annotated[SkillItReweighting | AgentReweighting, Field(discriminator="kind")]


class MixtureLimits(Closed):
    """What no re-weighting may exceed (METHODS 4.1)."""

    floor: float = Field(0.1, ge=0, le=1, description="least weight of a domain, over the equal weight 1/K")
    max_change: float = Field(
        0.3, gt=0, le=2, description="most change at once, as the sum of the weights' absolute differences"
    )
    epochs_max: float | None = Field(
        4.0, gt=0, description="how often a domain's rows may be taken over the whole job; none: without a bound"
    )


class WeightedMixing(Closed):
    """Which rows each step takes: every domain by its weight, which may change at each ``observe_every`` steps.

    A domain is one or more sources whose rows are one stream. ``weights`` are decimal strings, one for every domain but
    ``rest``, which takes what the others leave.

    A source is a batch, or with ``divide`` a batch's documents of one class, named ``BATCH/CLASS``: the class is the
    value of the column ``domain``, or the cluster that ``space`` (a folder that a measure job left) assigns.
    """

    kind: Literal["weighted"] = "weighted"
    domains: dict[str, tuple[str, ...]]
    weights: dict[str, str]
    rest: str
    batch: int = Field(ge=1)
    order: int
    cursor: Reference | None = None
    mixture: Reference | None = None
    """A mixture that an earlier job of the plan found: it takes the place of ``weights``, or, beside an agent, is one
    of the guard's."""
    new: tuple[str, ...] = ()
    """Sources of the decision's own batches; all others were trained on before."""
    prior: dict[str, float] = Field(default_factory=dict)
    """Every domain's share of all tokens."""
    similarity: dict[str, float] = Field(default_factory=dict)
    """How alike every domain is to what is new (METHODS 4.1)."""
    measured: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """The eval sets whose mean loss stands for a domain; one without any counts as the mean of the others."""
    divide: Literal["column", "clusters"] | None = None
    space: str | None = None
    observe_every: int | None = Field(None, ge=1)
    reweight: Reweighting | None = None
    """None: the weights stay; with ``observe_every`` they are recorded with the losses they led to."""
    limits: MixtureLimits | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(source for sources in self.domains.values() for source in sources)


Mixing = Annotated[ReplayMixing | WeightedMixing, Field(discriminator="kind")]


class FullSelection(Closed):
    """Every parameter moves."""

    kind: Literal["full"] = "full"
    lora: None = None


class LoraSelection(Closed):
    """Only a low-rank adapter (and a classification head) moves; continues the parent's adapter if it has one."""

    kind: Literal["lora"] = "lora"
    lora: LoraSettings


class FrozenSlice(Closed):
    """A part of a fused matrix that stays: ``start:stop`` along ``dim``."""

    dim: int = Field(ge=0)
    start: int = Field(ge=0)
    stop: int = Field(ge=1)


class HalfSelection(Closed):
    """Half of the parameter matrices moves (METHODS 2); what was drawn stands here by value.

    ``frozen`` are tensors that stay as they are, ``slices`` the frozen parts of fused ones; all else moves. With
    ``lora`` the names are those of the adapted modules' weights, and what stays are their adapters.
    ``detach_embeddings``: the input look-up gives no gradient, so that the backward pass ends at the lowest block that
    moves (a tied head still moves the shared matrix).
    """

    kind: Literal["half"] = "half"
    level: Literal["category", "model", "layer", "bottom"]
    frozen: tuple[str, ...]
    slices: dict[str, tuple[FrozenSlice, ...]] = Field(default_factory=dict)
    detach_embeddings: bool = False
    lora: LoraSettings | None = None


class AdapterSelection(Closed):
    """A task's own low-rank adapter and the shared head move (METHODS 3.6); it starts as a copy of ``start``."""

    kind: Literal["adapter"] = "adapter"
    name: str
    start: str | None = None
    lora: LoraSettings
    head_rate: float = Field(10.0, gt=0)
    """The head's learning rate over the adapter's."""
    pooling: Literal["mean", "cls", "last"] = "mean"
    """Which hidden states make a text's feature: all of them, the first token's, or the last token's."""


Selection = Annotated[FullSelection | LoraSelection | HalfSelection | AdapterSelection, Field(discriminator="kind")]


class CosineSchedule(Closed):
    """Linear warm-up, then cosine to ``min_lr`` (METHODS 1.2 a). ``warmup`` 0: start at the peak."""

    kind: Literal["cosine"] = "cosine"
    steps: int = Field(ge=1)
    warmup: int = Field(ge=0)
    lr: float = Field(gt=0)
    min_lr: float = Field(ge=0)
    warmup_start: Literal["zero", "eta_min", "last_lr"] = "zero"
    last_lr: float | None = None


class InfiniteSchedule(Closed):
    """Warm-up, cooldown, constant, anneal, each an explicit length in steps; any may be 0 (METHODS 1.2 b)."""

    kind: Literal["infinite"] = "infinite"
    warmup: int = Field(ge=0)
    cooldown: int = Field(ge=0)
    constant: int = Field(ge=0)
    anneal: int = Field(ge=0)
    lr: float = Field(gt=0)
    constant_lr: float = Field(gt=0)
    min_lr: float = Field(ge=0)
    style: Literal["cosine", "rsqrt", "linear"] = "cosine"
    timescale: float = 10.0


Schedule = Annotated[CosineSchedule | InfiniteSchedule, Field(discriminator="kind")]


class TaskObjective(Closed):
    """Next token, answer only, or classes, as the task says."""

    kind: Task


class GroupDroObjective(Closed):
    """DoReMi's proxy (METHODS 4.4): next token, each domain weighted by how far it is behind the frozen reference."""

    kind: Literal["group-dro"] = "group-dro"
    prior: dict[str, float]
    """Weight that each domain is sampled with; the first weights of the objective too."""
    eta: float = Field(1.0, gt=0)
    smoothing: float = Field(1e-3, ge=0, lt=1)


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


Objective = Annotated[TaskObjective | LocalObjective | GroupDroObjective, Field(discriminator="kind")]


class KeepConsolidation(Closed):
    """The trained weights are the result."""

    kind: Literal["keep"] = Field("keep", description="the trained weights as they are")


class AlignSettings(Closed):
    """The head trained on samples of every class's Gaussian after the task (METHODS 3.2)."""

    epochs: int = Field(30, ge=1, description="passes, one step a class in each")
    batches: int = Field(5, ge=1, description="features drawn of each class in an epoch, in batches")
    lr: float = Field(0.005, gt=0, description="peak rate of the head, decayed to 0")
    momentum: float = Field(0.9, ge=0, lt=1, description="of the descent")
    weight_decay: float = Field(5e-4, ge=0, description="of the head")


class RouterSettings(Closed):
    """Which adapter answers a request (METHODS 3.3, 3.6, 3.7); ``prior`` and what follows are for language models."""

    rounds: int = Field(4, ge=1, description="at most so often a request is sent on to another adapter")
    prior: Literal["cosine", "gaussian"] = Field(
        "gaussian",
        description="language models: how a prompt is compared with the domains before any adapter is asked; an adapter"
        " hardly learns its prompts, and cosines of their features lie close together",
    )
    temperature: float | None = Field(
        None, gt=0, description="prior cosine: multiplies the cosines; default: the number of domains"
    )
    threshold: float = Field(
        0.3, ge=0, le=1, description="language models: a request less probable in every domain goes to the base"
    )
    percentile: float = Field(
        99.0,
        gt=0,
        le=100,
        description="language models: one farther from all than this share of their own goes there too",
    )
    documents: int = Field(
        512, ge=8, description="language models: prompts of a domain that its statistics are made of"
    )


class TaskMeanConsolidation(Closed):
    """A bank of adapters, one a task, each pulled towards the mean of those before it (METHODS 3.2, 3.6)."""

    kind: Literal["task-mean"] = Field("task-mean", description="a bank of adapters, each pulled to earlier ones")
    alpha: float = Field(0.1, ge=0, le=1, description="how far an adapter is pulled at once; 0: not, 1: onto the mean")
    merge_every: Literal["step", "epoch", "task"] = Field("epoch", description="how often it is pulled")
    scale_alpha_by_lr: bool = Field(
        True, description="merge_every step: alpha falls with the rate, so that a stage's end does not erase it"
    )
    space: Literal["auto", "factor", "delta"] = Field(
        "auto", description="average factors, or their products (delta); auto: products once both differ by gap"
    )
    gap: float = Field(0.1, ge=0, description="space auto: relative difference above which products are averaged")
    covariance: Literal["auto", "full", "diagonal"] = Field(
        "auto", description="of class statistics; auto: diagonal above 1024 dimensions"
    )
    align: AlignSettings | None = Field(AlignSettings(), description="classes: training of the head after a task")
    router: RouterSettings = Field(RouterSettings(), description="which adapter answers a request")


Consolidation = Annotated[KeepConsolidation | EmaConsolidation | TaskMeanConsolidation, Field(discriminator="kind")]
