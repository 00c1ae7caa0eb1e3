"""Domains of documents, which a mixture has weights for: batches, the values of a column, or found by clustering.

Found ones come from :mod:`strategies.fitting.domains`. A packed row holds documents of one domain only, so that a batch
of several domains is several sources, named by :func:`part`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal

from pydantic import Field, model_validator

from strategies.errors import BadPlan
from strategies.settings import Closed

MOST = 64
"""Domains in one mixture: beyond that no batch could hold all of them."""
OTHER = "other"
CLASS_COLUMN = "domain"
"""Of snapshots: the class that a document was declared to be of; older snapshots lack it."""


class ClusterSettings(Closed):
    """How documents are clustered."""

    documents: int = Field(20_000, ge=20, description="documents that are clustered, the first by digest; all assigned")
    characters: int = Field(20_000, ge=100, description="a document is read up to here")
    terms: int = Field(20_000, ge=10, description="words that are looked at, the most frequent")
    dimensions: int = Field(64, ge=2, description="dimensions that the words' counts are reduced to")
    least: int = Field(2, ge=2, description="fewest domains that are tried")
    most: int = Field(12, ge=2, le=MOST, description="most domains that are tried")
    sample: int = Field(2_000, ge=20, description="documents that the silhouette is taken over")
    seed: int = Field(1234, ge=0, description="of the reduction and the clustering")

    @model_validator(mode="after")
    def _some_numbers(self) -> ClusterSettings:
        if self.least > self.most:
            raise ValueError(f"least {self.least} is above most {self.most}, so that no number of domains is tried")
        return self


class Silhouette(Closed):
    """How well one number of domains parts the documents: the mean silhouette and its standard error."""

    mean: float
    standard_error: float


class Domain(Closed):
    """One domain: its name, made of its foremost terms, and how many of the clustered documents it has."""

    name: str
    terms: tuple[str, ...]
    documents: int


class DomainSpace(Closed):
    """The domains that were found, and why so many.

    Rule: of the numbers of domains whose mean silhouette is within one standard error of the best, the smallest.
    """

    format: Literal[1] = 1
    domains: tuple[Domain, ...]
    rule: Literal["smallest number within one standard error of the best mean silhouette"] = (
        "smallest number within one standard error of the best mean silhouette"
    )
    silhouettes: dict[int, Silhouette]
    documents: int
    settings: ClusterSettings

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(domain.name for domain in self.domains)


def smallest_as_good(silhouettes: dict[int, Silhouette]) -> int:
    """The number of domains by the rule of :class:`DomainSpace`."""
    best = max(silhouettes.values(), key=lambda found: found.mean)
    return min(count for count, found in silhouettes.items() if found.mean >= best.mean - best.standard_error)


def by_column(values: Sequence[object]) -> list[str]:
    """The domain of each document: its value in a column, :data:`OTHER` where that is empty."""
    found = [str(value).strip() if value is not None else "" for value in values]
    if (count := len(set(found))) > MOST:
        raise BadPlan(f"{count} domains are too many to mix; declare at most {MOST}")
    return [name or OTHER for name in found]


def part(source: str, domain: str) -> str:
    """Name of the source that holds a batch's documents of one domain."""
    return f"{source}/{domain}"


def batch_of(source: str) -> str:
    """The batch that a source is, or is a part of."""
    return source.partition("/")[0]


def by_domain(losses: Mapping[str, float], measured: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Each domain's loss, the mean over its eval sets; one of which nothing was measured counts as the others' mean."""
    found = {name: [losses[one] for one in sets if one in losses] for name, sets in measured.items()}
    means = {name: fmean(values) for name, values in found.items() if values}
    if not means:
        raise BadPlan("no domain has an eval set to measure; wait for larger batches or leave re-weighting out")
    rest = fmean(means.values())
    return {name: means.get(name, rest) for name in measured}
