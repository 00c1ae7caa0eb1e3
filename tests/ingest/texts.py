"""Made-up documents, and files of them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FIRST = ("ba", "ce", "di", "fo", "gu", "ly", "mar", "nor", "pel", "sta")
WORDS = [first + last for first in FIRST for last in ("ron", "lim", "tas", "ver")]


def text(seed: int, words: int = 80) -> str:
    """A text that shares next to no five words with that of another seed."""
    chosen = random.Random(seed)
    return " ".join(chosen.choice(WORDS) + str(chosen.randrange(100)) for _ in range(words))


def rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"d{seed}", "text": text(seed)} for seed in range(start, start + count)]


def write_lines(path: Path, records: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
