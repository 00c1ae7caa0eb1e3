"""What the main benchmark is fed with: a base model and domain texts, cut to one token budget."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ANCHOR = "novels-en"
BATCHES = ("speeches-en", "novels-de", "code-python")
DOMAINS = (ANCHOR, *BATCHES)


class Missing(Exception):
    """The experiment data is not there."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Folders of the base model and of the domain texts."""

    model: Path
    data: Path

    @classmethod
    def under(cls, shared: Path) -> Inputs:
        """The usual places below one folder."""
        return cls(model=shared / "models" / "base-en", data=shared / "data" / "lm_domains")

    def check(self) -> None:
        """Raises :class:`Missing` with what lacks."""
        wanted = [self.model / "config.json", self.model / "tokenizer.json"]
        wanted += [self.fixed(domain) for domain in DOMAINS]
        lacking = [str(path) for path in wanted if not path.is_file()]
        if lacking:
            raise Missing(
                f"{lacking[0]} is not there; give --model and --data (rows {{text}}, DOMAIN.train and DOMAIN.val)"
            )

    def fixed(self, domain: str) -> Path:
        """The fixed validation file of a domain, packed or plain."""
        return self._packed_or_plain(f"{domain}.val.jsonl")

    def train(self, domain: str) -> Path:
        """The training file of a domain, packed or plain."""
        return self._packed_or_plain(f"{domain}.train.jsonl")

    def _packed_or_plain(self, name: str) -> Path:
        packed = self.data / f"{name}.gz"
        return packed if packed.is_file() else self.data / name

    def cut(self, domain: str, tokens: int, out: Path) -> int:
        """Write documents, evenly spread over the file, until ``tokens`` tokens are reached; the tokens written.

        Raises:
            Missing: the file is not there, or too short.
        """
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.model / "tokenizer.json"))
        rows = sorted(_rows(self.train(domain)), key=lambda row: hashlib.sha256(str(row["text"]).encode()).digest())
        written = 0
        with out.open("w", encoding="utf-8") as file:
            for row in rows:
                file.write(json.dumps({"id": row["id"], "text": row["text"]}, ensure_ascii=False) + "\n")
                written += len(tokenizer.encode(str(row["text"])).ids) + 1
                if written >= tokens:
                    return written
        raise Missing(
            f"{self.train(domain)} has {written} tokens of the {tokens} that are wanted; choose a smaller preset"
        )


def _rows(path: Path) -> Iterator[dict[str, object]]:
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())
    except FileNotFoundError as error:
        raise Missing(f"{path} is not there; give --data") from error


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
