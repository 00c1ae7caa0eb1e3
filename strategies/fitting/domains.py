"""Domains by clustering: TF-IDF, truncated SVD and k-means, kept as numbers so that later documents can be assigned.

How many domains there are is decided by the rule of :class:`DomainSpace`. The same documents in the same order, seed
and library versions give the same domains; what was found is stored by value, without pickle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors.numpy import load_file, save_file
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import silhouette_samples
from sklearn.preprocessing import normalize

from strategies.contract.domains import Domain, DomainSpace, Silhouette, smallest_as_good
from strategies.errors import BadState, Refused
from strategies.settings.mixing import ClusterSettings
from strategies.training.data import CHUNK

Numbers = NDArray[np.float32]
RECORD, TENSORS = "domains.json", "domains.safetensors"
_NAMED_BY = 3
_TERMS = 10
_STARTS = 4
_FEWEST = 20


@dataclass(frozen=True, kw_only=True)
class Domains:
    """A domain space and what assigns documents to it.

    ``vocabulary``: terms in the order of ``inverse`` (their inverse document frequencies) and of the columns of
    ``components``, (dimensions, terms); ``centroids``, (domains, dimensions), in the order of ``space.domains``.
    """

    space: DomainSpace
    vocabulary: tuple[str, ...]
    inverse: Numbers
    components: Numbers
    centroids: Numbers

    def assign(self, texts: Sequence[str]) -> list[str]:
        """Name of each text's domain: that of the nearest centroid."""
        vectorizer = _vectorizer(self.space.settings, vocabulary=list(self.vocabulary))
        vectorizer.idf_ = self.inverse
        names = self.space.names
        found: list[str] = []
        for start in range(0, len(texts), CHUNK):
            counted = vectorizer.transform(_cut(texts[start : start + CHUNK], self.space.settings))
            places = normalize(counted @ self.components.T)
            # Vectors are of one length, so that the nearest centroid is the one with the greatest product, less half
            # of its own squared length.
            near = places @ self.centroids.T - (self.centroids**2).sum(1) / 2
            found += [names[index] for index in near.argmax(1).tolist()]
        return found

    def save(self, folder: Path) -> None:
        """Leave ``domains.json`` and ``domains.safetensors`` in ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        record = {"space": self.space.model_dump(mode="json"), "vocabulary": list(self.vocabulary)}
        (folder / RECORD).write_text(json.dumps(record, ensure_ascii=False))
        save_file(
            {"inverse": self.inverse, "components": self.components, "centroids": self.centroids}, folder / TENSORS
        )

    @classmethod
    def load(cls, folder: Path) -> Domains:
        """Read what :meth:`save` left."""
        try:
            record = json.loads((folder / RECORD).read_bytes())
            space, vocabulary = DomainSpace.model_validate(record["space"]), tuple(map(str, record["vocabulary"]))
            tensors = load_file(folder / TENSORS)
            found = cls(space=space, vocabulary=vocabulary, **tensors)
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise BadState(f"the domains at {folder} cannot be read; find them anew: {error}") from error
        terms, dimensions = len(vocabulary), found.components.shape[0]
        shapes = found.inverse.shape, found.components.shape, found.centroids.shape
        if shapes != ((terms,), (dimensions, terms), (len(space.domains), dimensions)):
            raise BadState(f"the domains at {folder} do not fit together; find them anew")
        return found


def find_domains(texts: Sequence[str], settings: ClusterSettings) -> Domains:
    """Cluster ``texts`` (give them in the order of their digests, so that the first are a fair sample)."""
    texts = _cut(texts[: settings.documents], settings)
    if len(texts) < _FEWEST:
        raise Refused(f"{len(texts)} documents are too few to find domains in; give at least {_FEWEST}")
    vectorizer = _vectorizer(settings, max_df=0.9, min_df=2, max_features=settings.terms)
    try:
        counted = vectorizer.fit_transform(texts)
    except ValueError as error:
        raise Refused("the documents share no words to find domains by; declare the domains instead") from error
    dimensions = min(settings.dimensions, min(counted.shape) - 1)
    if dimensions < 2:
        raise Refused("the documents share too few words to find domains by; declare the domains instead")
    reduced = TruncatedSVD(dimensions, random_state=settings.seed).fit(counted)
    places = normalize(reduced.transform(counted))
    silhouettes = _silhouettes(places, settings)
    clusters = _clusters(places, smallest_as_good(silhouettes), settings.seed)
    terms = vectorizer.get_feature_names_out()
    order, domains = _described(counted, clusters.labels_, terms)
    return Domains(
        space=DomainSpace(domains=domains, silhouettes=silhouettes, documents=len(texts), settings=settings),
        vocabulary=tuple(terms.tolist()),
        inverse=vectorizer.idf_.astype(np.float32),
        components=np.ascontiguousarray(reduced.components_, dtype=np.float32),
        centroids=np.ascontiguousarray(clusters.cluster_centers_[order], dtype=np.float32),
    )


def _vectorizer(settings: ClusterSettings, **options: Any) -> Any:
    return TfidfVectorizer(sublinear_tf=True, dtype=np.float32, **options)


def _cut(texts: Sequence[str], settings: ClusterSettings) -> list[str]:
    return [text[: settings.characters] for text in texts]


def _clusters(places: Numbers, count: int, seed: int) -> Any:
    return KMeans(count, n_init=_STARTS, random_state=seed).fit(places)


def _silhouettes(places: Numbers, settings: ClusterSettings) -> dict[int, Silhouette]:
    """By number of domains; a number that would leave fewer than ten documents a domain is not tried."""
    sample = places[: settings.sample]
    most = max(settings.least, min(settings.most, len(places) // 10))
    found: dict[int, Silhouette] = {}
    for count in range(settings.least, most + 1):
        labels = _clusters(places, count, settings.seed).labels_[: len(sample)]
        if len(set(labels.tolist())) < 2:
            continue
        each = silhouette_samples(sample, labels)
        error = float(each.std(ddof=1) / np.sqrt(len(each)))
        found[count] = Silhouette(mean=float(each.mean()), standard_error=error)
    if not found:
        raise Refused("the documents are too alike to find domains in; declare the domains instead")
    return found


def _described(counted: Any, labels: NDArray[np.int32], terms: Any) -> tuple[list[int], tuple[Domain, ...]]:
    """Clusters from the largest to the smallest, and what sets each apart: terms far above their mean weight."""
    sizes = np.bincount(labels)
    order = sorted(range(len(sizes)), key=lambda cluster: (-sizes[cluster], cluster))
    overall = np.asarray(counted.mean(0)).ravel()
    domains: list[Domain] = []
    for cluster in order:
        above = np.asarray(counted[labels == cluster].mean(0)).ravel() - overall
        foremost = tuple(str(terms[place]) for place in np.argsort(-above, kind="stable")[:_TERMS])
        taken = {domain.name for domain in domains}
        domains.append(Domain(name=_name(foremost, taken), terms=foremost, documents=int(sizes[cluster])))
    return order, tuple(domains)


def _name(terms: Sequence[str], taken: set[str]) -> str:
    """The fewest foremost terms, at least three, that no larger domain is called by."""
    for count in range(_NAMED_BY, len(terms) + 1):
        name = "-".join(terms[:count])
        if name not in taken:
            return name
    return f"{'-'.join(terms[:_NAMED_BY])}-{len(taken) + 1}"
