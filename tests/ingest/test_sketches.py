"""Near-duplicates are found, others are not; stored signatures keep their meaning."""

from __future__ import annotations

import random

import numpy as np
import pytest

from orchestrator.ingest.sketches import BANDS, SIMILAR, bands, pack, signature, similarity, unpack
from tests.ingest.texts import text


def jaccard(one: str, other: str) -> float:
    first, second = ({tuple(words[i : i + 5]) for i in range(len(words) - 4)} for words in (one.split(), other.split()))
    return len(first & second) / len(first | second)


def changed(original: str, count: int, seed: int) -> str:
    words, chance = original.split(), random.Random(seed)
    for place in chance.sample(range(len(words)), count):
        words[place] = f"changed{place}"
    return " ".join(words)


@pytest.mark.parametrize("count", [0, 2, 5, 10, 30])
def test_the_estimate_is_near_the_true_similarity(count: int) -> None:
    original = text(1, words=400)
    other = changed(original, count, seed=2)
    assert similarity(signature(original), signature(other)) == pytest.approx(jaccard(original, other), abs=0.13)


def test_near_duplicates_share_a_band_and_strangers_do_not() -> None:
    hits = strangers = 0
    for seed in range(100):
        original = text(seed, words=300)
        near = changed(original, 3, seed)
        assert jaccard(original, near) >= SIMILAR
        hits += any(a == b for a, b in zip(bands(signature(original)), bands(signature(near)), strict=True))
        other = bands(signature(text(1000 + seed, words=300)))
        strangers += any(a == b for a, b in zip(bands(signature(original)), other, strict=True))
    assert hits >= 95
    assert strangers == 0


def test_case_punctuation_and_white_space_do_not_count() -> None:
    assert similarity(signature("How  much, is the FISH?"), signature("how much is the fish")) == 1


@pytest.mark.parametrize("short", ["a", "!!!", "日本語の文章です", "x" * 8])
def test_very_short_texts_have_a_signature_of_their_own(short: str) -> None:
    assert similarity(signature(short), signature(short + " and quite another thing")) < SIMILAR


def test_a_stored_signature_is_the_same_and_never_changes_its_meaning() -> None:
    values = signature("the quick brown fox jumps over the lazy dog")
    assert np.array_equal(unpack(pack(values)), values)
    assert (len(bands(values)), int(values[0]), bands(values)[0]) == (BANDS, GOLDEN_VALUE, GOLDEN_BAND)


GOLDEN_VALUE = 71882138
GOLDEN_BAND = 1600052383822934664
