"""Small data folders of the layout that the grids read, and the tiny models that go with them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.benchmarks import domains, sft
from tests.models import texts

LABELS = {0: ("calm", "angry"), 1: ("red", "blue")}
"""Task -> its classes."""


def lm_data(root: Path, *, years: int = 3) -> Path:
    """Domains and years of Python's own documentation, no text in two files."""
    names = [f"{domains.LM}/{name}" for name in (domains.ANCHOR, *domains.DOMAINS)]
    names += [f"{domains.TEMPORAL}/{1993 + year}" for year in range(years)]
    for at, name in enumerate(names):
        _write(root / f"{name}.train.jsonl", ({"id": f"t{i}", "text": one} for i, one in _texts(at, 20)))
        _write(root / f"{name}.val.jsonl", ({"id": f"v{i}", "text": one} for i, one in _texts(at, 2, skip=20)))
    return root


def class_data(root: Path) -> Path:
    """Two tasks of two classes whose words differ."""
    rows: list[dict[str, Any]] = [
        {"id": f"{task}-{label}-{i}", "text": f"{label} {i} {label} {i * 7}", "label": label, "task": task}
        for task, labels in LABELS.items()
        for label in labels
        for i in range(13)
    ]
    for name in ("clinc150", "banking77"):
        for split, numbers in (("train", range(8)), ("val", range(8, 11)), ("test", range(11, 13))):
            own = (row for row in rows if int(row["id"].rsplit("-", 1)[1]) in numbers)
            _write(root / "cls" / name / f"{split}.jsonl", own)
    return root


def sft_data(root: Path) -> Path:
    """A question and an answer a row, for every family."""
    for at, name in enumerate((*sft.FAMILIES, sft.GENERAL)):
        for split, skip in (("train", 0), ("test", 20)):
            rows = (
                {"id": f"{i}", "instruction": f"{name} {i}", "input": "", "output": one[:20]}
                for i, one in _texts(at, 20 if split == "train" else 3, skip=skip)
            )
            _write(root / "sft" / f"{name}.{split}.jsonl", rows)
    return root


def _texts(at: int, count: int, *, skip: int = 0) -> Iterable[tuple[int, str]]:
    return enumerate(texts(count, start=30 * at + skip))


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
