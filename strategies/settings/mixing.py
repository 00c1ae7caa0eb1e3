"""Weighted mixing as a user sets it: what a domain is, its first weight, and what changes the weights."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from strategies import defaults
from strategies.settings import Closed
from strategies.settings.agent import check_size

MOST_DOMAINS = 64
"""In one mixture: beyond that no batch could hold all of them."""


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


class MixtureLimits(Closed):
    """What no re-weighting may exceed (METHODS 4.1)."""

    floor: float = Field(0.1, ge=0, le=1, description="least weight of a domain, over the equal weight 1/K")
    max_change: float = Field(
        0.3, gt=0, le=2, description="most change at once, as the sum of the weights' absolute differences"
    )
    epochs_max: float | None = Field(
        4.0, gt=0, description="how often a domain's rows may be taken over the whole job; none: without a bound"
    )


class ClusterSettings(Closed):
    """How documents are clustered."""

    documents: int = Field(20_000, ge=20, description="documents that are clustered, the first by digest; all assigned")
    characters: int = Field(20_000, ge=100, description="a document is read up to here")
    terms: int = Field(20_000, ge=10, description="words that are looked at, the most frequent")
    dimensions: int = Field(64, ge=2, description="dimensions that the words' counts are reduced to")
    least: int = Field(2, ge=2, description="fewest domains that are tried")
    most: int = Field(12, ge=2, le=MOST_DOMAINS, description="most domains that are tried")
    sample: int = Field(2_000, ge=20, description="documents that the silhouette is taken over")
    seed: int = Field(1234, ge=0, description="of the reduction and the clustering")

    @model_validator(mode="after")
    def _some_numbers(self) -> ClusterSettings:
        if self.least > self.most:
            raise ValueError(f"least {self.least} is above most {self.most}, so that no number of domains is tried")
        return self


class DomainSettings(Closed):
    """What a domain is (METHODS 4.1: classes of content times old and new data)."""

    by: Literal["batch", "column", "clusters"] = Field(
        "batch",
        description="every batch and the anchor is a domain; or the classes named in the column source.domain_field; "
        "or classes found by clustering the documents; classes of new and of old data are domains of their own",
    )
    clusters: ClusterSettings = Field(default_factory=ClusterSettings, description="used when by is clusters")


class NoReweighting(Closed):
    """The weights stay as they are."""

    kind: Literal["none"] = Field("none", description="the weights stay as they are")


class SkillItSettings(Closed):
    """Skill-It (METHODS 4.3)."""

    kind: Literal["skill-it"] = Field("skill-it", description="weights follow what is still hard, online")
    eta: float = Field(0.2, gt=0, description="how strongly weights follow losses")
    window: int = Field(3, ge=1, description="evaluations whose losses are summed")
    graph: dict[str, dict[str, float]] | None = Field(
        None,
        description="how much training on a domain helps another, as `rekindle mixing graph` finds it; default: each"
        " helps itself alone",
    )
    targets: tuple[str, ...] = Field(
        (),
        description="domains that training is for (new: all new data): their mean loss alone moves the weights;"
        " default: every loss does",
    )


class DoReMiSettings(Closed):
    """DoReMi (METHODS 4.4): a reference job, a proxy job that finds the weights, the main job."""

    kind: Literal["doremi"] = Field("doremi", description="weights of the domains that lag a reference model")
    share: float = Field(0.25, gt=0, le=1, description="steps of the reference and of the proxy over the stage's")
    eta: float = Field(1.0, gt=0, description="how fast the weights move")
    smoothing: float = Field(1e-3, ge=0, lt=1, description="share that is dealt out equally at every step")


class RegMixSettings(Closed):
    """RegMix (METHODS 4.2): tiny runs on many mixtures, a regression, the main job on the mixture that it chose."""

    kind: Literal["regmix"] = Field("regmix", description="the mixture that a regression over tiny runs chooses")
    runs: int = Field(64, ge=1, le=10_000, description="tiny runs, each on a mixture of its own")
    tokens: int = Field(50_000, ge=1024, description="tokens of a tiny run")
    jobs: int = Field(4, ge=1, description="jobs that the tiny runs are dealt out to")
    old_weight: float = Field(0.5, ge=0, le=1, description="weight of the old domains' loss in what is minimised")
    hidden: int = Field(
        defaults.HIDDEN, ge=8, description=f"width of the tiny runs' model, a multiple of {2 * defaults.HEADS}"
    )
    layers: int = Field(defaults.LAYERS, ge=1, description="layers of the tiny runs' model")
    max_parameters: int = Field(
        defaults.MAX_PARAMETERS, ge=1, description="most parameters that it may have beside its embeddings"
    )

    @model_validator(mode="after")
    def _fits(self) -> RegMixSettings:
        check_size(hidden=self.hidden, layers=self.layers, heads=defaults.HEADS, max_parameters=self.max_parameters)
        return self


WITHOUT = (
    "Without an agent one of the guard's constant mixtures is trained on: the first weights, in which replay gives old"
    " domains at least 25 %; nothing is compared then, regmix is what compares"
)
"""What `reweight: agent` does without a folder."""


class AgentMixSettings(Closed):
    """Data Mixing Agent (METHODS 4.1)."""

    kind: Literal["agent"] = Field("agent", description="a taught agent chooses the weights")
    folder: str | None = Field(
        None,
        description="what `rekindle mixing train` left; default: none, and none ships, as `rekindle strategy show"
        f" data-mixing` explains. {WITHOUT}",
    )
    patience: int = Field(
        3,
        ge=1,
        description="steps in a row after which a constant mixture (uniform, prior, replay 5 or 25 %) that promises"
        " more takes over",
    )
    regmix: RegMixSettings | None = Field(
        None, description="a RegMix search before each stage, whose mixture is one of the guard's too; default: none"
    )


ReweightSettings = Annotated[
    NoReweighting | SkillItSettings | DoReMiSettings | RegMixSettings | AgentMixSettings, Field(discriminator="kind")
]


class WeightedSettings(Closed):
    """Every domain by its weight (METHODS 4)."""

    kind: Literal["weighted"] = Field("weighted", description="every domain by its weight, which may change")
    weights: Literal["replay", "prior", "uniform"] | dict[str, float] = Field(
        "replay",
        description="first weights: replay (old domains share what replay would take), prior (by tokens), uniform, "
        "or each domain's own; domains left out share what remains; new names all new data, whichever batch it came in",
    )
    domains: DomainSettings = Field(default_factory=DomainSettings, description="what a domain is")
    reweight: ReweightSettings = Field(default_factory=NoReweighting, description="what changes the weights")
    updates: int = Field(10, ge=1, description="times that losses are looked at, evenly over the stage")
    limits: MixtureLimits = Field(default_factory=MixtureLimits, description="what no re-weighting may exceed")

    @property
    def first(self) -> Literal["replay", "prior", "uniform"] | dict[str, float]:
        """What the first weights are made by: RegMix finds its own, around every domain's share of all tokens."""
        return "prior" if self.reweight.kind == "regmix" else self.weights

    @property
    def search(self) -> RegMixSettings | None:
        """RegMix's search for the weights, or the one for an agent's guard."""
        if isinstance(self.reweight, AgentMixSettings):
            return self.reweight.regmix
        return self.reweight if isinstance(self.reweight, RegMixSettings) else None

    @model_validator(mode="before")
    @classmethod
    def _words(cls, raw: Any) -> Any:
        """A word is the kind of re-weighting, or what domains are told apart by."""
        if not isinstance(raw, dict):
            return raw
        short = {"reweight": "kind", "domains": "by"}
        return {
            key: {short[key]: value} if key in short and isinstance(value, str) else value for key, value in raw.items()
        }


MixingSettings = Annotated[
    NewSettings | ReplaySettings | EverythingSettings | WeightedSettings, Field(discriminator="kind")
]
