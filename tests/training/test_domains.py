"""Domains of documents: found by clustering, kept by value, or declared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from strategies.contract.domains import DomainSpace, Silhouette, by_column, part, smallest_as_good
from strategies.errors import BadPlan, BadState, Refused
from strategies.fitting.domains import Domains, find_domains
from strategies.jobs.dividing import divide
from strategies.settings.mixing import ClusterSettings
from strategies.training.data import training_side
from tests.training import makers

WORDS = {
    "cooking": "flour butter oven sugar dough bake salt pan recipe knead",
    "sailing": "mast anchor wind harbour keel rudder tide sail deck hull",
    "law": "court judge appeal clause statute tenant contract verdict plea bail",
}
GLUE = ["the", "a", "of", "and", "to", "in", "that", "it", "was", "for", "on", "with", "as", "his", "they", "at"]


def document(topic: str, number: int) -> str:
    random = np.random.default_rng([len(topic), number])
    own = random.choice(WORDS[topic].split(), 12)
    return " ".join(random.permutation([*own, *random.choice(GLUE, 15)]).tolist())


def corpus(counts: dict[str, int], start: int = 0) -> list[tuple[str, str]]:
    made = [(topic, document(topic, start + n)) for topic, count in counts.items() for n in range(count)]
    return [made[at] for at in np.random.default_rng(5).permutation(len(made))]


DOCUMENTS = corpus({"cooking": 120, "sailing": 60, "law": 30})


@pytest.fixture(scope="module")
def found() -> Domains:
    return find_domains([text for _, text in DOCUMENTS], ClusterSettings())


def test_documents_of_three_topics_make_three_domains(found: Domains) -> None:
    assert [domain.documents for domain in found.space.domains] == [120, 60, 30]
    for domain, topic in zip(found.space.domains, ("cooking", "sailing", "law"), strict=True):
        assert set(domain.terms[:5]) <= set(WORDS[topic].split())
        assert domain.name == "-".join(domain.terms[:3])


def test_why_there_are_so_many_is_on_record(found: Domains) -> None:
    tried = found.space.silhouettes
    assert list(tried) == list(range(2, 13))
    best = max(tried.values(), key=lambda one: one.mean)
    assert tried[3].mean >= best.mean - best.standard_error > tried[2].mean


def test_of_numbers_that_are_as_good_the_smallest_is_taken() -> None:
    tried = {2: (0.30, 0.01), 3: (0.41, 0.02), 4: (0.42, 0.02), 5: (0.39, 0.02)}
    made = {count: Silhouette(mean=mean, standard_error=error) for count, (mean, error) in tried.items()}
    assert smallest_as_good(made) == 3


def test_new_documents_are_assigned_to_the_domain_of_their_topic(found: Domains) -> None:
    later = corpus({"cooking": 10, "sailing": 10, "law": 10}, start=1000)
    name = dict(zip(("cooking", "sailing", "law"), found.space.names, strict=True))
    assert found.assign([text for _, text in later]) == [name[topic] for topic, _ in later]
    assert found.assign([]) == []
    assert found.assign(["", "ünbekannt 世界"])[0] in found.space.names


def test_the_same_documents_and_seed_give_the_same_domains(found: Domains) -> None:
    again = find_domains([text for _, text in DOCUMENTS], ClusterSettings())
    assert again.space == found.space
    assert again.vocabulary == found.vocabulary
    assert np.array_equal(again.centroids, found.centroids)


def test_domains_read_back_assign_alike_and_hold_no_pickle(found: Domains, tmp_path: Path) -> None:
    found.save(tmp_path)
    again = Domains.load(tmp_path)
    texts = [text for _, text in corpus({"law": 20, "sailing": 20}, start=500)]
    assert again.space == found.space
    assert again.assign(texts) == found.assign(texts)
    assert {path.name for path in tmp_path.iterdir()} == {"domains.json", "domains.safetensors"}


def shorter_vocabulary(folder: Path) -> None:
    record = json.loads((folder / "domains.json").read_text())
    (folder / "domains.json").write_text(json.dumps({**record, "vocabulary": record["vocabulary"][1:]}))


def other_tensors(folder: Path) -> None:
    save_file({"idf": load_file(folder / "domains.safetensors")["inverse"]}, folder / "domains.safetensors")


@pytest.mark.parametrize(
    "damage",
    [shorter_vocabulary, other_tensors, lambda folder: (folder / "domains.json").write_text("{")],
    ids=["vocabulary", "tensors", "json"],
)
def test_damaged_domains_are_refused(found: Domains, tmp_path: Path, damage: Callable[[Path], object]) -> None:
    found.save(tmp_path)
    damage(tmp_path)
    with pytest.raises(BadState, match="find them anew"):
        Domains.load(tmp_path)


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["too few"] * 5, "too few to find"),
        ([f"w{n}" for n in range(40)], "share no words"),
        (["one two"] * 40, "share no words|too few words|too alike"),
    ],
)
def test_documents_without_domains_are_refused(texts: list[str], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        find_domains(texts, ClusterSettings())


def test_only_the_first_documents_and_characters_are_read() -> None:
    texts = [text + " x" * 500 for _, text in DOCUMENTS]
    few = find_domains(texts, ClusterSettings(documents=100, characters=100, sample=50))
    assert few.space.documents == sum(domain.documents for domain in few.space.domains) == 100


def test_a_batch_is_divided_into_the_sources_of_its_domains(found: Domains, tmp_path: Path) -> None:
    texts = [{"text": text} for _, text in DOCUMENTS]
    documents = training_side(makers.source(tmp_path / "batch.parquet", texts), "causal-lm")
    parts = divide(documents, found.assign(documents.column("text")))
    assert sorted(parts) == sorted(found.space.names)
    assert sorted(row for one in parts.values() for row in one.rows.tolist()) == list(range(len(texts)))
    for one in parts.values():
        assert one.column("text") == [texts[row]["text"] for row in one.rows]
        assert one.digests == sorted(one.digests)
        assert one.size == documents.size


def test_domains_can_be_declared_by_column() -> None:
    assert by_column(["news", None, " news ", "", 7]) == ["news", "other", "news", "other", "7"]
    assert part("batch-1", "news") == "batch-1/news"
    with pytest.raises(BadPlan, match="65 domains are too many"):
        by_column(range(65))


def test_domains_are_found_anew_once_clusters_has_other_settings(tmp_path: Path, llama: Path, found: Domains) -> None:
    found.save(tmp_path / "parent")
    source = makers.source(tmp_path / "b.parquet", [{"text": text} for _, text in DOCUMENTS])

    def measured(name: str, settings: ClusterSettings) -> DomainSpace:
        work = {
            "kind": "measure",
            "sources": [makers.as_json(source)],
            "training": makers.training(),
            "divide": "clusters",
            "clusters": settings.model_dump(),
            "space": str(tmp_path / "parent"),
        }
        left = makers.carry_out(tmp_path / name, makers.spec(work, llama)).artifacts["state/domains"]
        return Domains.load(tmp_path / name / left).space

    assert measured("same", ClusterSettings()) == found.space
    assert len(measured("other", ClusterSettings(least=4)).domains) >= 4
