"""The demonstration's text is there in this Python, the same every time, and of clearly different kinds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.demo import corpus
from orchestrator.demo.story import BATCH_CHARS, ENGLISH_CHARS


@pytest.mark.parametrize("domain", sorted(corpus.DOMAINS))
def test_every_domain_fills_its_batch(domain: str, tmp_path: Path) -> None:
    chars = ENGLISH_CHARS if domain == "english" else BATCH_CHARS
    documents = corpus.write(domain, tmp_path / "batch.jsonl", chars=chars)
    rows = [json.loads(line) for line in (tmp_path / "batch.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == documents == len({row["id"] for row in rows}) > 50
    lengths = [len(row["text"]) for row in rows]
    assert sum(lengths) >= 0.9 * chars
    assert max(lengths) < 2 * corpus.PIECE_CHARS, "one long document outweighs all others in an eval set"


def test_the_same_text_is_drawn_every_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        corpus.write("letters", tmp_path / name, chars=20_000)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_code_holds_no_prose() -> None:
    pieces = [text for _, text in zip(range(200), corpus.code(), strict=False)]
    assert not any('"""' in text for text in pieces if "str" not in text)
    assert sum("def " in text for text in pieces) > 100


def test_a_python_that_carries_too_little_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(corpus.DOMAINS, "english", lambda: iter(["short text"]))
    with pytest.raises(ValueError, match="carries only 10 characters of english"):
        corpus.write("english", tmp_path / "batch.jsonl", chars=1000)


def test_pieces_end_at_line_ends_and_leave_a_short_rest_out() -> None:
    assert list(corpus.pieces("a" * 250 + "\n" + "b" * 250 + "\nrest", size=300)) == ["a" * 250 + "\n" + "b" * 250]


def test_lines_longer_than_a_piece_are_left_out() -> None:
    assert list(corpus.pieces("a" * 250 + "\n" + "{" * 5000 + "\n" + "b" * 250, size=300)) == [
        "a" * 250 + "\n" + "b" * 250
    ]
