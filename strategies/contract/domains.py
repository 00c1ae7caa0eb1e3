"""Domains of documents, which a mixture has weights for: batches, the values of a column, or found by clustering.

Found ones come from :mod:`strategies.fitting.domains`. A packed row holds documents of one domain only, so that a batch
of several domains is several sources, named by :func:`part`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Literal

from strategies.errors import BadPlan
from strategies.settings import Closed
from strategies.settings.mixing import MOST_DOMAINS, ClusterSettings

OTHER = "other"
CLASS_COLUMN = "domain"
"""Of snapshots: the class that a document was declared to be of; older snapshots lack it."""


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
    if (count := len(set(found))) > MOST_DOMAINS:
        raise BadPlan(f"{count} domains are too many to mix; declare at most {MOST_DOMAINS}")
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
