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
    """Old rows take the place of a share of the new ones in every step (METHODS 1.4)."""

    kind: Literal["replay"] = Field("replay", description="old rows in place of a share of the new ones, in every step")
    share: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="share of old rows in every step; default: chosen by the measured shift from old to new",
    )


class EverythingSettings(Closed):
    """The anchor, all trained batches and the new ones together."""

    kind: Literal["everything"] = Field(
        "everything", description="the anchor, all trained batches and the new ones together"
    )


class MixtureLimits(Closed):
    """Limits on the weights that a re-weighting or a search finds (METHODS 4.1)."""

    floor: float = Field(
        0.1, ge=0, le=1, description="least weight of a domain, as a share of the equal weight 1/K of K domains"
    )
    max_change: float = Field(
        0.3, gt=0, le=2, description="most that weights may change at once, as the sum of their absolute differences"
    )
    epochs_max: float | None = Field(
        4.0, gt=0, description="most times that a domain's rows may be taken over the whole job; null: no limit"
    )


class ClusterSettings(Closed):
    """How documents are clustered into domains."""

    documents: int = Field(
        20_000, ge=20, description="documents that the clusters are found from; the others are assigned to them"
    )
    characters: int = Field(20_000, ge=100, description="characters of a document that are read")
    terms: int = Field(20_000, ge=10, description="words that are counted, the most frequent ones")
    dimensions: int = Field(64, ge=2, description="dimensions that the words' counts are reduced to")
    least: int = Field(2, ge=2, description="fewest clusters that are tried")
    most: int = Field(12, ge=2, le=MOST_DOMAINS, description="most clusters that are tried")
    sample: int = Field(2_000, ge=20, description="documents that a number of clusters is scored on (silhouette)")
    seed: int = Field(1234, ge=0, description="seed of the reduction and the clustering")

    @model_validator(mode="after")
    def _some_numbers(self) -> ClusterSettings:
        if self.least > self.most:
            raise ValueError(f"least {self.least} is above most {self.most}, so that no number of domains is tried")
        return self


class DomainSettings(Closed):
    """What a domain is: a class of content, of new and of old data apart (METHODS 4.1)."""

    by: Literal["batch", "column", "clusters"] = Field(
        "batch",
        description="batch: each batch, and the anchor; column: each value of the column source.domain_field; clusters:"
        " each cluster of documents. New and old documents of one value or cluster are two domains",
    )
    clusters: ClusterSettings = Field(
        default_factory=ClusterSettings, description="by clusters: how documents are clustered"
    )


class NoReweighting(Closed):
    """The weights stay as they are."""

    kind: Literal["none"] = Field("none", description="the weights stay as they are")


class SkillItSettings(Closed):
    """Skill-It: weights follow the losses during the stage (METHODS 4.3)."""

    kind: Literal["skill-it"] = Field(
        "skill-it", description="more weight during the stage for domains whose losses are still high"
    )
    eta: float = Field(0.2, gt=0, description="how strongly the weights follow the losses")
    window: int = Field(3, ge=1, description="how many of the last evaluations count; their losses are added up")
    graph: dict[str, dict[str, float]] | None = Field(
        None,
        description="how much training on one domain helps another, as `rekindle mixing graph` prints it; default: a"
        " domain helps itself alone",
    )
    targets: tuple[str, ...] = Field(
        (),
        description="domains that training is for (new: all new data), whose mean loss alone moves the weights;"
        " default: all domains, each by its own loss",
    )


class DoReMiSettings(Closed):
    """DoReMi: a reference job, a proxy job that finds the weights, then the stage's own job (METHODS 4.4)."""

    kind: Literal["doremi"] = Field(
        "doremi", description="more weight for domains on which a short run lags behind a reference run"
    )
    share: float = Field(
        0.25, gt=0, le=1, description="steps of the reference and of the proxy, each as a share of the stage's"
    )
    eta: float = Field(1.0, gt=0, description="how fast the weights move")
    smoothing: float = Field(
        1e-3, ge=0, lt=1, description="share of the weight that is dealt out equally at every step"
    )


class RegMixSettings(Closed):
    """RegMix: tiny runs on many mixtures, a regression over them, then the stage's own job (METHODS 4.2)."""

    kind: Literal["regmix"] = Field(
        "regmix", description="the mixture that a regression over tiny runs predicts to be best"
    )
    runs: int = Field(64, ge=1, le=10_000, description="tiny runs, each on a mixture of its own")
    tokens: int = Field(50_000, ge=1024, description="training tokens of a tiny run")
    jobs: int = Field(4, ge=1, description="jobs that the tiny runs are divided among")
    old_weight: float = Field(0.5, ge=0, le=1, description="weight of the old domains' loss beside the new ones'")
    hidden: int = Field(
        defaults.HIDDEN, ge=8, description=f"width of the tiny runs' model, a multiple of {2 * defaults.HEADS}"
    )
    layers: int = Field(defaults.LAYERS, ge=1, description="layers of the tiny runs' model")
    max_parameters: int = Field(
        defaults.MAX_PARAMETERS, ge=1, description="most parameters of that model, without its embeddings"
    )

    @model_validator(mode="after")
    def _fits(self) -> RegMixSettings:
        check_size(hidden=self.hidden, layers=self.layers, heads=defaults.HEADS, max_parameters=self.max_parameters)
        return self


WITHOUT = (
    "Without an agent the stage keeps the first weights, in which replay gives old domains at least 25 %; unlike with"
    " regmix, they are compared with no others"
)
"""What `reweight: agent` does without a folder."""


class AgentMixSettings(Closed):
    """Data Mixing Agent: a network that was taught on many runs chooses the weights (METHODS 4.1)."""

    kind: Literal["agent"] = Field(
        "agent", description="an agent that was taught before chooses the weights during the stage"
    )
    folder: str | None = Field(
        None,
        description=f"folder of an agent that `rekindle mixing train` made; none ships with Rekindle. {WITHOUT}",
    )
    patience: int = Field(
        3,
        ge=1,
        description="times in a row that a constant mixture (uniform, prior, 5 or 25 % of replay) has to promise more"
        " than the agent's before it takes over for good",
    )
    regmix: RegMixSettings | None = Field(
        None, description="a RegMix search before each stage; its mixture joins the constant ones. Default: none"
    )


ReweightSettings = Annotated[
    NoReweighting | SkillItSettings | DoReMiSettings | RegMixSettings | AgentMixSettings, Field(discriminator="kind")
]


class WeightedSettings(Closed):
    """Every domain by its weight (METHODS 4)."""

    kind: Literal["weighted"] = Field("weighted", description="every domain by its weight, which may change")
    weights: Literal["replay", "prior", "uniform"] | dict[str, float] = Field(
        "replay",
        description="first weights: replay (old domains share what replay would take), prior (by tokens), uniform, or a"
        " weight for each domain, where new means all new data, domains left out share the rest, and the weight of one"
        " that has no data now goes to the others in proportion",
    )
    domains: DomainSettings = Field(default_factory=DomainSettings, description="what a domain is")
    reweight: ReweightSettings = Field(default_factory=NoReweighting, description="what changes the weights")
    updates: int = Field(10, ge=1, description="times that losses are measured, evenly over the stage")
    limits: MixtureLimits = Field(
        default_factory=MixtureLimits, description="limits on the weights that a re-weighting or a search finds"
    )

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
