"""What real files throw at a reader: our own small set of damage, and a large public one where it is at hand."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.ingest.records import IngestReport
from tests.ingest.conftest import World
from tests.ingest.texts import rows, text

GOOD = [json.dumps(row, ensure_ascii=False).encode() for row in rows(8)]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "dirty"


def spoil(place: int, line: bytes) -> bytes:
    return b"\n".join([*GOOD[:place], line, *GOOD[place:]]) + b"\n"


OWN = {
    "nul-run": (spoil(3, b"\0" * 4096), 8, 1),
    "half-a-record": (b"\n".join(GOOD)[:-40], 7, 1),
    "blank-lines": (b"\n \n\t\n".join(GOOD), 8, 0),
    "latin-1": (spoil(0, '{"text": "Größe"}'.encode("latin-1")), 8, 1),
    "surrogate": (spoil(8, b'{"text": "\\ud83d"}'), 8, 1),
    "emoji": (spoil(8, b'{"text": "\\ud83d\\ude00 and more"}'), 9, 0),
    "odd-ids": (spoil(2, json.dumps({"id": ["x"] * 9, "text": text(90)}).encode()), 9, 0),
    "deep": (spoil(4, b'{"text": ' + b"[" * 5000), 8, 1),
    "special-tokens": (spoil(4, b'{"text": "<|endoftext|></s>[PAD]"}'), 9, 0),
    "not-objects": (spoil(4, b'null\n42\n"text"\n[1]'), 8, 4),
}


@pytest.mark.parametrize("name", OWN)
def test_good_rows_are_kept_and_bad_ones_counted(local: World, tmp_path: Path, name: str) -> None:
    content, good, bad = OWN[name]
    path = tmp_path / f"{name}.jsonl"
    path.write_bytes(content)
    report = local.ingest(path)
    assert (report.documents, report.quarantined) == (good, bad)


def test_a_file_cut_anywhere_is_never_half_accepted(local: World, tmp_path: Path) -> None:
    whole = gzip.compress(b"\n".join(GOOD))
    for end in range(1, len(whole), 50):
        path = tmp_path / f"{end}.jsonl.gz"
        path.write_bytes(whole[:end])
        assert local.ingest(path).outcome == "refused"


def expected() -> dict[str, dict[str, Any]]:
    path = SHARED / "expected.json"
    return json.loads(path.read_text()) if path.exists() else {}


def check(report: IngestReport, facts: dict[str, Any]) -> None:
    if "good_docs" in facts:
        assert report.documents + report.duplicates + report.leaked == facts["good_docs"]
    if "bad_records" in facts:
        assert report.quarantined == facts["bad_records"]
    if facts["what"].startswith(("invalid", "corrupt")):
        assert report.outcome == "refused"


@pytest.mark.data
@pytest.mark.skipif(not SHARED.exists(), reason="the experiment data is not there")
@pytest.mark.parametrize("folder", sorted({name.split("/")[0] for name in expected()}))
def test_every_dirty_file_is_read_as_expected(local: World, folder: str) -> None:
    for name, facts in expected().items():
        if name.startswith(f"{folder}/"):
            check(local.ingest(SHARED / name), facts)
