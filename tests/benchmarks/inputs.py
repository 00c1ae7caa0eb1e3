"""What the main benchmark is fed with: a base model and domain texts, cut to one token budget."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ANCHOR = "novels-en"
BATCHES = ("speeches-en", "novels-de", "code-python")
DOMAINS = (ANCHOR, *BATCHES)


class Missing(Exception):
    """The experiment data is not there, or too little of it."""


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
        require(model_files(self.model))
        require(path for domain in DOMAINS for path in (self.train(domain), self.fixed(domain)))

    def fixed(self, domain: str) -> Path:
        """The fixed validation file of a domain, packed or plain."""
        return packed_or_plain(self.data / f"{domain}.val.jsonl")

    def train(self, domain: str) -> Path:
        """The training file of a domain, packed or plain."""
        return packed_or_plain(self.data / f"{domain}.train.jsonl")

    def cut_fixed(self, domain: str, documents: int, out: Path) -> None:
        """Write a domain's first validation documents by hash."""
        rows = by_hash(rows_of(self.fixed(domain)))[:documents]
        out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")

    def cut(self, domain: str, parts: Sequence[tuple[Path, int]]) -> list[int]:
        """Write files of documents, evenly spread over the source and none in two files; the tokens of each.

        Args:
            parts: Files, each with the tokens at which it is full.

        Raises:
            Missing: the source is not there, or too short.
        """
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(self.model / "tokenizer.json"))
        source = self.train(domain)
        rows = iter(by_hash(rows_of(source)))
        written = [_fill(out, rows, tokenizer, tokens) for out, tokens in parts]
        if written[-1] < parts[-1][1]:
            raise Missing(f"{source} has fewer than {sum(one for _, one in parts)} tokens; choose a smaller preset")
        return written


def _fill(out: Path, rows: Iterator[dict[str, object]], tokenizer: Tokenizer, tokens: int) -> int:
    written = 0
    with out.open("w", encoding="utf-8") as file:
        for row, size in first_tokens(rows, tokenizer, tokens):
            file.write(json.dumps({"id": row["id"], "text": row["text"]}, ensure_ascii=False) + "\n")
            written += size
    return written


def first_tokens(
    rows: Iterator[dict[str, object]], tokenizer: Tokenizer, tokens: int
) -> Iterator[tuple[dict[str, object], int]]:
    """The next rows and their tokens, up to the row that brings them to ``tokens``."""
    taken = 0
    while taken < tokens and (row := next(rows, None)) is not None:
        size = len(tokenizer.encode(str(row["text"])).ids) + 1
        taken += size
        yield row, size


def model_files(model: Path) -> Iterator[Path]:
    """What a model's folder must have for a benchmark."""
    return (model / name for name in ("config.json", "model.safetensors", "tokenizer.json"))


def require(paths: Iterable[Path]) -> None:
    """See to it that files are there, packed or plain.

    Raises:
        Missing: the first that is not.
    """
    lacking = next((path for path in paths if not packed_or_plain(path).is_file()), None)
    if lacking is not None:
        raise Missing(f"{lacking} is not there; give --model or --data")


def packed_or_plain(path: Path) -> Path:
    """``path`` with .gz, or as it is where there is no such file."""
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.is_file() else path


def by_hash(rows: Iterable[dict[str, object]]) -> list[dict[str, object]]:
    """Rows in the order of their texts' hashes: any first part is evenly spread over the source."""
    return sorted(rows, key=lambda row: hashlib.sha256(str(row["text"]).encode()).digest())


def rows_of(path: Path) -> Iterator[dict[str, object]]:
    """Rows of a JSONL file, packed or plain."""
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.strip())
    except FileNotFoundError as error:
        raise Missing(f"{path} is not there; give --data") from error


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
