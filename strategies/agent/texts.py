"""Domains from text files: a tokenizer of their own, token ids, and a held-out tenth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from strategies.agent.environment import DomainTokens
from strategies.agent.requests import DomainFile
from strategies.agent.rows import Ids
from strategies.errors import Refused
from strategies.mixing.order import permuted
from strategies.pretrain import Recipe, train_tokenizer

HELD = 10
"""One of so many documents is held out."""
MOST_BYTES = 64 << 20


def read_domains(files: Sequence[DomainFile], *, vocabulary: int, row: int) -> list[DomainTokens]:
    """Token ids of every domain under one byte-level tokenizer, trained on what is trained on.

    Raises:
        Refused: a file cannot be read, or does not fill a row on either side.
    """
    sides = {one.name: _split(one, _documents(one)) for one in files}
    recipe = Recipe(vocabulary=max(vocabulary, 512))
    tokenizer = train_tokenizer([text for train, _ in sides.values() for text in train], recipe)

    def ids(texts: list[str]) -> Ids:
        found = [token for text in texts for token in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
        return np.asarray(found, dtype=np.int64)

    made = [
        DomainTokens(name=one.name, new=one.target, train=ids(sides[one.name][0]), validation=ids(sides[one.name][1]))
        for one in files
    ]
    for one in made:
        if min(len(one.train), len(one.validation)) < row:
            raise Refused(f"domain {one.name} has too little text for a row of {row} tokens on both sides; give more")
    return made


def hashes(files: Sequence[DomainFile]) -> dict[str, str]:
    """sha256 of every domain's file."""
    return {one.name: hashlib.sha256(_bytes(one)).hexdigest() for one in files}


def _bytes(one: DomainFile) -> bytes:
    try:
        if Path(one.path).stat().st_size > MOST_BYTES:
            raise Refused(f"{one.path} is larger than {MOST_BYTES >> 20} MB; a proxy reads less: give a sample")
        return Path(one.path).read_bytes()
    except OSError as error:
        raise Refused(f"the text of domain {one.name} cannot be read: {error}") from error


def _documents(one: DomainFile) -> list[str]:
    """Documents in an order by hash, so that what is held out does not depend on how the file was sorted."""
    try:
        text = _bytes(one).decode()
        if one.path.endswith(".jsonl"):
            found = [str(json.loads(line)["text"]) for line in text.splitlines() if line.strip()]
        else:
            found = [part.strip() for part in text.split("\n\n")]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(f"{one.path} is neither plain text nor JSONL with a column text: {error}") from error
    kept = [text for text in dict.fromkeys(found) if text]
    return [kept[at] for at in permuted(np.arange(len(kept), dtype=np.int64), "domain texts").tolist()]


def _split(one: DomainFile, documents: list[str]) -> tuple[list[str], list[str]]:
    if len(documents) < 2:
        raise Refused(
            f"domain {one.name} has {len(documents)} documents, and two are the least: part them by blank lines"
        )
    cut = max(1, len(documents) // HELD)
    return documents[cut:], documents[:cut]
