"""The parts of a plan, seam by seam: mixing, selection, schedule, objective, consolidation; records only, no torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from strategies.settings import Closed, LoraSettings, Task
from strategies.settings.consolidation import EmaConsolidation, KeepConsolidation, TaskMeanConsolidation
from strategies.settings.mixing import MixtureLimits
from strategies.settings.objective import LocalObjective

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
    window: int = Field(ge=1)
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
    patience: int = Field(ge=1)
    """Steps in a row that a constant mixture must promise more before it takes over."""
    found: dict[str, float] = Field(default_factory=dict)
    """A constant mixture that an earlier job of the plan found, for the guard to compare with too; empty: none."""


Reweighting = Annotated[SkillItReweighting | AgentReweighting, Field(discriminator="kind")]


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

    @property
    def first_weights(self) -> dict[str, float]:
        """The first weight of every domain, ``rest`` last."""
        weights = {name: float(weight) for name, weight in self.weights.items()}
        return {**weights, self.rest: 1 - sum(weights.values())}


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
    head_rate: float = Field(gt=0)
    """The head's learning rate over the adapter's."""
    pooling: Literal["mean", "cls", "last"]
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
    eta: float = Field(gt=0)
    smoothing: float = Field(ge=0, lt=1)


Objective = Annotated[TaskObjective | LocalObjective | GroupDroObjective, Field(discriminator="kind")]


Consolidation = Annotated[KeepConsolidation | EmaConsolidation | TaskMeanConsolidation, Field(discriminator="kind")]
