"""What a strategy answers with: jobs to run, and every value with its origin."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from strategies.contract.regmix import FitSettings
from strategies.parts import Consolidation, Mixing, Objective, Reference, Schedule, Selection, WeightedMixing
from strategies.settings import Closed, TrainingSettings
from strategies.settings.agent import ProxySettings
from strategies.settings.consolidation import KeepConsolidation
from strategies.settings.merging import Merge


class TrainTemplate(Closed):
    """One train job of a plan; references are edges of the plan's graph."""

    kind: Literal["train"] = "train"
    init: Reference
    optimizer: Reference | None = None
    mixing: Mixing
    selection: Selection
    schedule: Schedule
    objective: Objective
    reference: Reference | None = None
    """The frozen model that the objective compares with."""
    consolidation: Consolidation = KeepConsolidation()
    steps: int = Field(ge=1)
    training: TrainingSettings
    state: tuple[str, ...] = ()
    """Which ``state/*`` artifacts the job leaves for later stages, beside its answer."""


class ProxyTemplate(Closed):
    """Tiny runs on constant mixtures, one after the other, of a proxy that shares only the tokenizer of ``init``."""

    kind: Literal["proxy"] = "proxy"
    init: Reference
    mixing: WeightedMixing
    """The domains and their eval sets; its weights are not used."""
    mixtures: tuple[dict[str, float], ...] = Field(min_length=1)
    targets: tuple[str, ...]
    """Domains that the training is for."""
    proxy: ProxySettings
    training: TrainingSettings
    state: tuple[str, ...] = ("evidence/runs",)


class FitTemplate(Closed):
    """RegMix's regression over the tiny runs of earlier jobs, and the mixture that it chooses."""

    kind: Literal["fit"] = "fit"
    init: Reference
    runs: tuple[Reference, ...] = Field(min_length=1)
    fit: FitSettings
    training: TrainingSettings
    state: tuple[str, ...] = ("state/mixture", "evidence/regmix")


class MergeTemplate(Closed):
    """The last step of a stage: what its train jobs made becomes one model (METHODS 7)."""

    kind: Literal["merge"] = "merge"
    init: Reference
    """The model that changes are counted from, or gone back towards: a version's, or an earlier job's."""
    members: dict[str, Reference] = Field(min_length=1)
    """Role -> the answer of a train job, or ``init`` itself."""
    method: Merge
    into: Literal["model", "adapter"] = "model"
    rows: dict[str, str] = Field(default_factory=dict)
    """Role -> the source that its Fisher information is estimated from; fisher only."""
    sets: tuple[str, ...] = ()
    """Eval sets that a greedy soup chooses by."""
    training: TrainingSettings
    state: tuple[str, ...] = ()


Template = Annotated[TrainTemplate | ProxyTemplate | FitTemplate | MergeTemplate, Field(discriminator="kind")]


class Explained(Closed):
    """A resolved value and where it comes from."""

    value: Any
    origin: str


class Plan(Closed):
    """The executable form of a decision; the version is the ``answer/*`` of job ``result`` and all jobs' state."""

    format: Literal[1] = 1
    strategy: str
    jobs: dict[str, Template]
    result: str
    reason: str
    values: dict[str, Explained] = Field(default_factory=dict)
