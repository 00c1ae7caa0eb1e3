"""Reading a batch: rows are normalised, compared with all that is known, and laid into scratch and working copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestrator.ingest import earlier, sketches
from orchestrator.ingest.normalise import Normal, Normaliser, Unusable, no_column
from orchestrator.ingest.records import Bad, Kind, Refused, Row, excerpt
from orchestrator.ingest.scratch import Scratch, Staged
from orchestrator.ingest.snapshots import Writer
from storage.database import Database
from strategies.contract.domains import CLASS_COLUMN

CHUNK_ROWS = 256
CHUNK_BYTES = 4 << 20


class Pending(NamedTuple):
    """A normalised row and where it came from."""

    file: str
    line: int
    shown: object
    normal: Normal


@dataclass(kw_only=True)
class Counts:
    """What was read; ``rows`` is the sum of all the others and of the staged rows, ``near_duplicates`` aside."""

    rows: int = 0
    usable: int = 0
    staged: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    conflicts: int = 0
    leaked: int = 0
    quarantined: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    columns: tuple[str, ...] = ()
    first_problem: str = ""


class Gatherer:
    """Takes the rows of one batch, file by file."""

    def __init__(
        self,
        *,
        database: Database,
        stream_id: str,
        kind: Kind,
        compared: bool = True,
        normaliser: Normaliser,
        max_rows: int,
        scratch: Scratch,
        writer: Writer,
        counts: Counts,
    ) -> None:
        self._database = database
        self._stream_id = stream_id
        self._kind = kind
        self._compared = compared
        self._normaliser = normaliser
        self._max_rows = max_rows
        self._scratch = scratch
        self._writer = writer
        self._pending: list[Pending] = []
        self._pending_bytes = 0
        self.counts = counts

    def take(self, file: str, records: Iterable[Row | Bad]) -> None:
        """Read all rows of one file.

        Raises:
            Refused: there are more rows than allowed, or the file turns out to be damaged.
        """
        for record in records:
            self.counts.rows += 1
            if self.counts.rows > self._max_rows:
                raise Refused(f"the batch has more than limits.max_rows = {self._max_rows} rows; split it")
            if isinstance(record, Bad):
                self._quarantine(file, record)
            else:
                self._take_row(file, record)

    def finish(self) -> None:
        """Lay down what is still pending.

        Raises:
            Refused: no row was usable.
        """
        self._flush()
        if not self.counts.usable:
            raise Refused(self._why_nothing())

    def _take_row(self, file: str, row: Row) -> None:
        if not self.counts.columns:
            self.counts.columns = tuple(row.fields)[:20]
        shown = row.raw if row.raw is not None else row.fields
        try:
            normal = self._normaliser(row.fields)
        except Unusable as problem:
            if problem.missing:
                self.counts.missing[problem.missing] += 1
            self._quarantine(file, Bad(row.line, problem.reason, problem.detail, excerpt(shown)))
            return
        self.counts.usable += 1
        self._pending.append(Pending(file, row.line, shown, normal))
        self._pending_bytes += len(normal.text)
        if len(self._pending) >= CHUNK_ROWS or self._pending_bytes >= CHUNK_BYTES:
            self._flush()

    def _quarantine(self, file: str, bad: Bad) -> None:
        self.counts.quarantined += 1
        self.counts.reasons[bad.reason] += 1
        if not self.counts.first_problem:
            self.counts.first_problem = f"line {bad.line}: {bad.reason}" + (f" ({bad.detail})" if bad.detail else "")
        self._scratch.quarantine(file, bad)

    def _flush(self) -> None:
        if not self._pending:
            return
        chunk = [pending.normal for pending in self._pending]
        signatures = [sketches.signature(normal.text) for normal in chunk]
        bands = [sketches.bands(signature) for signature in signatures]
        matches = self._matches(chunk, signatures, bands)
        for place, pending in enumerate(self._pending):
            match = self._in_this_batch(pending.normal) or matches[place]
            self._apply(pending, match, signatures[place], bands[place])
        self._pending, self._pending_bytes = [], 0

    def _matches(
        self, chunk: list[Normal], signatures: list[sketches.Signature], bands: list[list[int]]
    ) -> list[earlier.Match]:
        """How each row stands to earlier batches; a file that is only measured on is compared with none."""
        if not self._compared:
            return [earlier.Match("keep")] * len(chunk)
        with self._database.read() as session:
            known = earlier.look_up(session, self._stream_id, chunk, signatures, bands)
        return [earlier.judge(self._kind, normal, place, known) for place, normal in enumerate(chunk)]

    def _in_this_batch(self, normal: Normal) -> earlier.Match | None:
        if self._scratch.has(normal.digest):
            return earlier.Match("duplicate")
        if normal.label is not None and self._scratch.label_of(normal.content_digest) not in (None, normal.label):
            return earlier.Match("conflict")
        return None

    def _apply(self, pending: Pending, match: earlier.Match, signature: sketches.Signature, bands: list[int]) -> None:
        if match.verdict == "duplicate":
            self.counts.duplicates += 1
        elif match.verdict == "leaked":
            self.counts.leaked += 1
        elif match.verdict == "conflict":
            self.counts.conflicts += 1
            bad = Bad(pending.line, "conflict", "the same text has another label", excerpt(pending.shown))
            self._quarantine(pending.file, bad)
        else:
            self._stage(pending.normal, match, signature, bands)

    def _stage(self, normal: Normal, match: earlier.Match, signature: sketches.Signature, bands: list[int]) -> None:
        row = self._writer.count
        staged = Staged(
            row=row,
            digest=normal.digest,
            content=normal.content_digest,
            external=normal.external_id,
            label=normal.label,
            team=normal.group,
            signature=sketches.pack(signature),
            side=match.side,
            earlier=match.cluster,
        )
        near = [
            other
            for other, stored in self._scratch.add(staged, bands)
            if sketches.similarity(signature, sketches.unpack(stored)) >= sketches.SIMILAR
        ]
        for other in near:
            self._scratch.join(row, other)
        self.counts.near_duplicates += bool(near or match.near)
        self.counts.staged += 1
        self._writer.add({"row": row, **normal.fields, CLASS_COLUMN: normal.domain})

    def _why_nothing(self) -> str:
        counts = self.counts
        if not counts.rows:
            return "there are no rows in it; nothing was ingested"
        if sum(counts.missing.values()) == counts.rows:
            column = counts.missing.most_common(1)[0][0]
            field = next((name for name, mapped in self._normaliser.mapping.items() if mapped == column), column)
            return no_column(field, column, counts.columns)
        return f"none of its {counts.rows} rows is usable; the first problem is at {counts.first_problem}"
