"""Rows out of bytes, one at a time, in bounded memory.

- **JSONL**: one object a line; blank lines are skipped; a bad line is quarantined, the others are kept.
- **JSON array** (a file that is not named ``.jsonl`` and begins with ``[``): its elements are the rows. An array
  that is cut, or followed by anything, is refused whole.
- **CSV** (``.csv``, ``.tsv``): first line names the columns; a row with another number of fields is quarantined, broken
  quoting refuses the file, because no row after it can be trusted.
- **Text** (``.txt``, ``.text``, ``.md``): a document is a run of paragraphs (separated by blank lines), packed up to
  4 KB; a longer paragraph stays whole.
- **Parquet**: by column, see :mod:`orchestrator.ingest.parquet`.

Text is strict UTF-8: a row that is not is quarantined, never repaired.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath

from orchestrator.ingest import parquet
from orchestrator.ingest.containers import open_container
from orchestrator.ingest.normalise import Normaliser
from orchestrator.ingest.records import Bad, Refused, Row, excerpt
from orchestrator.ingest.strict_json import JsonProblem, parse
from orchestrator.settings import IngestLimits

TEXT_DOCUMENT_BYTES = 4096
PACKED = (".gz", ".gzip", ".zst", ".zstd")
_BLANK = b" \t\r"
_JSON_BLANK = b" \t\r\n"
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},]|[^"\[\]{},]++', re.DOTALL)

Records = Iterator[Row | Bad]
Lines = Iterator[tuple[int, bytes, bool]]
Reader = Callable[[Iterator[bytes], IngestLimits], Records]


def read(path: Path, *, name: str, limits: IngestLimits, normaliser: Normaliser) -> Records:
    """The rows of the file at ``path`` that came under ``name``; of Parquet, only the columns that are needed.

    Raises:
        Refused: the file as a whole cannot be read.
    """
    opened = open_container(path, limits)
    if opened.parquet:
        return parquet.rows(path, limits=limits, normaliser=normaliser)
    reader = _reader(name, opened.head)
    if reader is text:
        return text(opened.blocks, limits, column=normaliser.mapping.get("text", "text"))
    return reader(opened.blocks, limits)


def knows(name: str) -> bool:
    """Whether a file of this name has a reader, packed or not."""
    return _suffix(name) in READERS


def _suffix(name: str) -> str:
    suffixes = [suffix.lower() for suffix in PurePosixPath(name).suffixes[-3:]]
    while suffixes and suffixes[-1] in PACKED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _reader(name: str, head: bytes) -> Reader:
    """By the name; under a name that says nothing, JSON is known by its first character."""
    found = READERS.get(_suffix(name))
    if found is None and head.lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n")[:1] in (b"{", b"["):
        found = any_json
    if found is None:
        raise Refused(f"the file is of no known kind; name it {', '.join(READERS)} (also {', '.join(PACKED)})")
    return found


def lines(blocks: Iterator[bytes], limit: int) -> Lines:
    """Number, bytes and whether they are whole; a line over ``limit`` bytes gives its beginning only."""
    number, tail, cut = 1, b"", False
    for block in blocks:
        *ended, rest = block.split(b"\n")
        for piece in ended:
            line = tail + piece
            yield number, line[:limit], not cut and len(line) <= limit
            number, tail, cut = number + 1, b"", False
        if not cut:
            tail += rest
        if len(tail) > limit:
            tail, cut = tail[:1024], True
    if tail:
        yield number, tail, not cut


def any_json(blocks: Iterator[bytes], limits: IngestLimits) -> Records:
    """An array if it begins as one, else one object a line."""
    first = next(blocks, b"")
    reader = json_array if first.lstrip(_JSON_BLANK).startswith(b"[") else json_lines
    return reader(chain((first,), blocks), limits)


def json_lines(blocks: Iterator[bytes], limits: IngestLimits) -> Records:
    """One object a line."""
    for number, line, whole in lines(blocks, limits.max_row_bytes):
        if not whole:
            yield _too_long(number, line, limits)
        elif line.strip(_BLANK):
            yield json_row(number, line, limits)


def json_row(number: int, line: bytes, limits: IngestLimits) -> Row | Bad:
    """The object in ``line``, or why there is none."""
    try:
        value = parse(line.decode("utf-8"), max_nesting=limits.max_nesting)
    except UnicodeDecodeError as error:
        return Bad(number, "not valid UTF-8", f"at byte {error.start} of the line", excerpt(line))
    except JsonProblem as problem:
        return Bad(number, problem.reason, problem.detail, excerpt(line))
    if not isinstance(value, dict):
        return Bad(number, "not an object", f"a JSON {type(value).__name__}", excerpt(line))
    return Row(number, value, line)


def _too_long(number: int, line: bytes, limits: IngestLimits) -> Bad:
    return Bad(number, "row too long", f"more than limits.max_row_bytes = {limits.max_row_bytes}", excerpt(line))


def json_array(blocks: Iterator[bytes], limits: IngestLimits) -> Records:
    """The elements of a JSON array."""
    for number, element in _elements(blocks, limits.max_row_bytes):
        yield json_row(number, element, limits)


def _elements(blocks: Iterator[bytes], limit: int) -> Iterator[tuple[int, bytes]]:
    """Line and bytes of each element; only brackets, strings and commas are looked at, without recursion."""
    scan = _ArrayScan(limit)
    for block in blocks:
        yield from scan.feed(block)
    if scan.depth >= 0:
        raise Refused("the JSON array is cut short; nothing of it was kept, send it again")


class _ArrayScan:
    """Where the scan of an array stands; ``depth`` is 0 before it, 1 between elements, -1 after its end."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.depth = 0
        self.line = 1
        self.emitted = 0
        self.text = b""
        self.position = 0
        self.start = 0

    def feed(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        self.text += block
        while token := _TOKEN.match(self.text, self.position):
            self.position = token.end()
            yield from self._token(token.group()[:1], token.group(), token.start())
        self._forget_the_read()

    def _token(self, first: bytes, token: bytes, at: int) -> Iterator[tuple[int, bytes]]:
        if self.depth == 1 and first in b",]":
            yield from self._end_element(at, last=first == b"]")
        elif first in b"[{":
            self._open(first)
        elif first in b"]}":
            self.depth -= 1
            if self.depth < 1:
                raise Refused(f"line {self.line}: brackets of the JSON array do not match; nothing of it was kept")
        elif self.depth < 1 and token.strip(_JSON_BLANK):
            raise Refused(f"line {self.line}: text outside of the JSON array; write one object a line instead")

    def _open(self, first: bytes) -> None:
        if self.depth == 0 and first == b"[":
            self.start = self.position
        elif self.depth < 1:
            raise Refused(f"line {self.line}: something follows the JSON array; write one object a line instead")
        self.depth += 1

    def _end_element(self, at: int, *, last: bool) -> Iterator[tuple[int, bytes]]:
        element = self.text[self.start : at]
        body = element.strip(_JSON_BLANK)
        begin = self.line + element[: element.find(body[:1])].count(b"\n") if body else self.line
        self.line += element.count(b"\n")
        self.start = self.position
        if last:
            self.depth = -1
        if body:
            self.emitted += 1
            yield begin, body
        elif not last or self.emitted:
            raise Refused(f"line {self.line}: an element of the JSON array is missing; nothing of it was kept")

    def _forget_the_read(self) -> None:
        keep = self.start if self.depth > 0 else self.position
        self.text, self.position, self.start = (
            self.text[keep:],
            self.position - keep,
            self.start - min(keep, self.start),
        )
        if len(self.text) > self.limit:
            raise Refused(f"line {self.line}: an element has more than limits.max_row_bytes = {self.limit} bytes")


def comma_separated(blocks: Iterator[bytes], limits: IngestLimits) -> Records:
    """CSV with a header."""
    return _separated(blocks, limits, ",")


def tab_separated(blocks: Iterator[bytes], limits: IngestLimits) -> Records:
    """CSV with tabs and a header."""
    return _separated(blocks, limits, "\t")


def _separated(blocks: Iterator[bytes], limits: IngestLimits, delimiter: str) -> Records:
    feed = _CsvLines(lines(blocks, limits.max_row_bytes), limits.max_row_bytes)
    csv.field_size_limit(limits.max_row_bytes)
    reader = csv.reader(feed, strict=True, delimiter=delimiter)
    try:
        header = _header(next(reader, []))
        for values in reader:
            number = feed.start_record()
            if len(values) == len(header):
                yield Row(number, dict(zip(header, values, strict=True)))
            elif values:
                detail = f"{len(values)} fields where the header has {len(header)}"
                yield Bad(number, "wrong number of fields", detail, excerpt(delimiter.join(values[:20])))
    except csv.Error as error:
        raise Refused(f"line {feed.number}: broken CSV ({error}); nothing of the file was kept") from None


def _header(names: list[str]) -> list[str]:
    if not names or not any(name.strip() for name in names):
        raise Refused("the CSV has no header; its first line must name the columns")
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(names) < 10_000 else ["too many"]
    if repeated:
        raise Refused(f"the CSV's header repeats {excerpt(repeated[0])!r}; name each column once")
    return names


class _CsvLines:
    """Lines for the csv module, which joins them where quotes span lines; caps the bytes of one record.

    Bytes that are not UTF-8 become lone surrogates here and are quarantined with their row.
    """

    def __init__(self, source: Lines, limit: int) -> None:
        self._source = source
        self._limit = limit
        self._bytes = 0
        self._first = 1
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        for number, line, whole in self._source:
            self.number = number
            self._bytes += len(line)
            if not whole or self._bytes > self._limit:
                raise Refused(f"line {number}: a record has more than limits.max_row_bytes = {self._limit} bytes")
            yield line.decode("utf-8", "surrogateescape") + "\n"

    def start_record(self) -> int:
        first, self._first, self._bytes = self._first + (self._first == 1), self.number + 1, 0
        return first


def text(blocks: Iterator[bytes], limits: IngestLimits, *, column: str = "text") -> Records:
    """Paragraphs of plain text, packed up to 4 KB a document."""
    start, packed = 1, b""
    for number, paragraph in _paragraphs(lines(blocks, limits.max_row_bytes), limits.max_row_bytes):
        if packed and len(packed) + len(paragraph) + 2 > TEXT_DOCUMENT_BYTES:
            yield _text_row(start, packed, limits, column)
            packed = b""
        start = start if packed else number
        packed = packed + b"\n\n" + paragraph if packed else paragraph
    if packed:
        yield _text_row(start, packed, limits, column)


def _text_row(number: int, packed: bytes, limits: IngestLimits, column: str) -> Row | Bad:
    if len(packed) > limits.max_row_bytes:
        return _too_long(number, packed, limits)
    try:
        return Row(number, {column: packed.decode("utf-8")}, packed)
    except UnicodeDecodeError as error:
        return Bad(number, "not valid UTF-8", f"at byte {error.start} of the paragraph", excerpt(packed))


def _paragraphs(source: Lines, limit: int) -> Iterator[tuple[int, bytes]]:
    start, paragraph = 1, bytearray()
    for number, line, whole in source:
        if line.strip(_BLANK):
            start = start if paragraph else number
            paragraph += b"\n" + line if paragraph else line
            if not whole or len(paragraph) > limit:
                # One byte over the limit is refused later; more need not be held.
                paragraph = paragraph[:limit].ljust(limit + 1)
        elif paragraph:
            yield start, bytes(paragraph)
            paragraph = bytearray()
    if paragraph:
        yield start, bytes(paragraph)


def misnamed_parquet(_blocks: Iterator[bytes], _limits: IngestLimits) -> Records:
    """What is named Parquet and is not: Parquet itself is known by its first bytes, whatever its name."""
    raise Refused("the file is named .parquet but is not Parquet; write it again")


READERS: dict[str, Reader] = {
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": any_json,
    ".parquet": misnamed_parquet,
    ".csv": comma_separated,
    ".tsv": tab_separated,
    ".txt": text,
    ".text": text,
    ".md": text,
}
"""What a file's name says of it, lower case and without the suffix of a packing."""
