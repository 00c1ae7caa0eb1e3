"""Replay does what it is for, on a model small enough to see it in a minute (METHODS 1.9)."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.training import makers

STEPS = 150
Documents = list[dict[str, str]]


def corpus(letters: str, count: int, *, start: int = 0) -> Documents:
    """Walks in which each letter has three likely successors; another alphabet is another language."""
    after = {letter: random.Random(letter).choices(letters, k=3) for letter in letters}
    documents: Documents = []
    for number in range(start, start + count):
        draw = random.Random(f"{letters}{number}")
        walk = [draw.choice(letters)]
        for _ in range(120):
            walk.append(draw.choice(after[walk[-1]]))
        documents.append({"text": " ".join(walk)})
    return documents


def trained(directory: Path, model: Path, new: Documents, old: Documents | None, share: str) -> Path:
    mixing = {"batch": 8, **({"old": {"anchor": "1"}, "share": share} if old else {})}
    job = makers.train_job(directory.parent, model, new, old=old, steps=STEPS, mixing=mixing)
    job["work"]["template"]["schedule"] |= {"lr": 5e-3, "min_lr": 5e-4}
    makers.carry_out(directory, job)
    return directory / "out" / "model"


def loss_on(directory: Path, model: Path, documents: Documents) -> float:
    file = makers.held(directory.with_suffix(".parquet"), documents)
    work = {"kind": "evaluate", "sets": [makers.as_json(file)], "training": makers.training(max_length=64)}
    return makers.carry_out(directory, makers.spec(work, model)).scores[0].value


@pytest.mark.slow
def test_the_more_is_replayed_the_less_is_forgotten(tmp_path: Path, llama: Path) -> None:
    old, new = corpus("abcdefgh", 80), corpus("hgstuvwx", 80)
    held = corpus("abcdefgh", 20, start=500)
    base = trained(tmp_path / "base", llama, old, None, "0")
    losses = [loss_on(tmp_path / "before", base, held)]
    for share in ("0", "0.05", "0.25", "0.5"):
        model = trained(tmp_path / f"share-{share}", base, new, old if share != "0" else None, share)
        losses.append(loss_on(tmp_path / f"scores-{share}", model, held))
    before, *after = losses
    assert after == sorted(after, reverse=True)
    assert after[0] > before + 0.1
    assert after[-1] - before < (after[0] - before) / 2
