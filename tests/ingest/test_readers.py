"""Every format gives its rows; what is damaged is refused, what is bad in a row costs that row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ingest.normalise import Normaliser
from orchestrator.ingest.readers import json_array, json_lines, lines, read
from orchestrator.ingest.records import Bad, Refused, Row, escape, excerpt
from orchestrator.ingest.strict_json import JsonProblem, parse
from orchestrator.settings import IngestLimits, SourceSettings

LIMITS = IngestLimits()
DOCUMENTS = [{"id": str(n), "text": f"text number {n}, with “quotes” and\nlines"} for n in range(50)]
LINES = "".join(json.dumps(document) + "\n" for document in DOCUMENTS).encode()


def found(path: Path, *, limits: IngestLimits = LIMITS, task: Any = "causal-lm") -> list[Row | Bad]:
    return list(read(path, name=path.name, limits=limits, normaliser=Normaliser(task, SourceSettings())))


def fields(path: Path) -> list[dict[str, Any]]:
    return [record.fields for record in found(path) if isinstance(record, Row)]


def table() -> pa.Table:
    return pa.Table.from_pylist(DOCUMENTS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.ndjson", LINES.replace(b"\n", b"\r\n")),
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES),
        ("utf16.jsonl", LINES.decode().encode("utf-16")),
        ("a.jsonl.gz", gzip.compress(LINES)),
        ("members.jsonl.gz", gzip.compress(LINES[:700]) + gzip.compress(LINES[700:])),
        ("no-suffix", gzip.compress(LINES)),
        ("plain-named.jsonl.gz", LINES),
        ("a.jsonl.zst", zstandard.compress(LINES)),
        ("frames.zst", zstandard.compress(LINES[:700]) + zstandard.compress(LINES[700:])),
        ("a.json", json.dumps(DOCUMENTS, indent=2).encode()),
        ("a.json.gz", gzip.compress(json.dumps(DOCUMENTS).encode())),
    ],
)
def test_json_of_any_packing_gives_the_same_rows(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert fields(path) == DOCUMENTS


def test_parquet_gives_the_needed_columns_only(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table().append_column("other", [list(range(50))]), path, row_group_size=7)
    assert fields(path) == DOCUMENTS


@pytest.mark.parametrize(("suffix", "delimiter"), [(".csv", ","), (".tsv", "\t")])
def test_csv_joins_quoted_lines_and_keeps_commas(tmp_path: Path, suffix: str, delimiter: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text(f'id{delimiter}text\n1{delimiter}"two\nlines, one ""field"""\n2{delimiter}plain\n')
    assert fields(path) == [{"id": "1", "text": 'two\nlines, one "field"'}, {"id": "2", "text": "plain"}]


def test_csv_rows_are_numbered_by_their_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text,id\n"one\ntwo",1\nonly one field\nthree,3\n')
    assert [(record.line, isinstance(record, Bad)) for record in found(path)] == [(2, False), (4, True), (5, False)]


def test_text_packs_paragraphs_up_to_four_kilobytes(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(["short one", "short two", "x" * 5000, "after"]))
    assert [len(row["text"]) for row in fields(path)] == [len("short one\n\nshort two"), 5000, 5]


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("cut.jsonl.gz", gzip.compress(LINES)[:-20], "cut or damaged"),
        ("crc.jsonl.gz", gzip.compress(LINES)[:-8] + bytes(8), "cut or damaged"),
        ("garbage.jsonl.gz", gzip.compress(LINES) + b"garbage", "cut or damaged"),
        ("cut.jsonl.zst", zstandard.compress(LINES)[:-20], "cut or damaged"),
        ("twice.jsonl.gz", gzip.compress(gzip.compress(LINES)), "packed twice"),
        ("a.zip", b"PK\x03\x04rest", "zip archive"),
        ("a.tar", bytes(257) + b"ustar" + bytes(250), "tar archive"),
        ("a.jsonl", b"\x80\x04\x95rest", "pickle"),
        ("a.py", b"import os\n", "no known kind"),
        ("a.parquet", LINES, "not Parquet"),
        ("a.jsonl", b"", "empty"),
        ("cut.json", b'[{"text": "a"}, {"text": "b"', "cut short"),
        ("more.json", b'[{"text": "a"}] {}', "follows the JSON array"),
        ("comma.json", b'[{"text": "a"},]', "element of the JSON array is missing"),
        ("quote.csv", b'text\n"never closed\n', "broken CSV"),
        ("twice.csv", b"text,text\na,b\n", "repeats"),
        ("header.csv", b"\n", "no header"),
        ("utf16.txt", b"\xff\xfea", "marked as utf-16"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_whole(tmp_path: Path, name: str, content: bytes, why: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(Refused, match=why):
        found(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_cut_parquet_file_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(Refused, match="cut or damaged"):
        found(path)


def test_a_parquet_string_that_is_not_utf8_costs_its_row_only(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": pa.array([b"good", b"\xff\xfe", b"good too"])}), path)
    assert [getattr(record, "reason", None) for record in found(path)] == [None, "not valid UTF-8", None]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a"', "not valid JSON"),
        (b'{"text": NaN}', "number out of range"),
        (b'{"text": 1e9999}', "number out of range"),
        (b'{"text": ' + b"9" * 5000 + b"}", "number out of range"),
        (b'{"text": "a", "text": "b"}', "duplicate key"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"text": "caf\xe9"}', "not valid UTF-8"),
        (b'{"text": "a\x00b"}', "not valid JSON"),
        (b"42", "not an object"),
    ],
)
def test_a_bad_line_is_quarantined_and_the_others_are_kept(line: bytes, reason: str) -> None:
    good = b'{"text": "good"}\n'
    first, bad, last = json_lines(iter([good + line + b"\n" + good]), LIMITS)
    assert isinstance(bad, Bad)
    assert (bad.line, bad.reason, len(bad.excerpt) <= 200) == (2, reason, True)
    assert first[1] == last[1] == {"text": "good"}


def test_deep_nesting_inside_strings_is_no_nesting() -> None:
    assert parse('{"text": "' + "[{" * 1000 + '"}', max_nesting=4) == {"text": "[{" * 1000}


@pytest.mark.parametrize("depth", [63, 64, 65])
def test_nesting_is_allowed_up_to_the_limit(depth: int) -> None:
    text = "[" * depth + "]" * depth
    if depth > 64:
        with pytest.raises(JsonProblem, match="nested too deep"):
            parse(text, max_nesting=64)
    else:
        assert parse(text, max_nesting=64) is not None


def test_a_line_over_the_limit_is_quarantined_and_the_next_is_kept() -> None:
    blocks = iter([*([b"a" * 1000] * 50), b'\n{"text": "b"}'])
    bad, good = json_lines(blocks, IngestLimits(max_row_bytes=5000))
    assert (bad[1], good[1]) == ("row too long", {"text": "b"})


def test_a_cap_on_unpacked_bytes_refuses_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(LINES * 1000))
    with pytest.raises(Refused, match="max_decompressed_bytes"):
        found(path, limits=IngestLimits(max_decompressed_bytes=1_000_000))


@given(st.lists(st.binary(max_size=12).filter(lambda line: b"\n" not in line), max_size=20), st.integers(1, 9))
def test_lines_do_not_depend_on_where_the_blocks_end(wanted: list[bytes], size: int) -> None:
    content = b"".join(line + b"\n" for line in wanted)
    blocks = (content[start : start + size] for start in range(0, len(content), size))
    assert [line for _, line, whole in lines(blocks, 100) if whole] == wanted


VALUES = st.recursive(st.none() | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3), max_leaves=4)


@given(st.lists(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), max_size=5), st.integers(1, 9))
def test_an_array_gives_its_elements_wherever_the_blocks_end(wanted: list[Any], size: int) -> None:
    content = json.dumps(wanted, ensure_ascii=False).encode("utf-8", "surrogatepass")
    blocks = (content[start : start + size] for start in range(0, len(content), size))
    assert [getattr(record, "fields", None) for record in json_array(blocks, LIMITS)] == wanted


@given(st.text())
def test_an_excerpt_is_one_printable_line(raw: str) -> None:
    assert escape(raw).isprintable()
    assert len(escape(raw)) <= 200


def test_an_excerpt_shows_terminal_escapes_as_text() -> None:
    assert excerpt(b"\x1b[31mred\x07\xff") == "\\x1b[31mred\\x07\\xff"
