"""The memory of one ingest, on disk: a database of its own in the work folder, deleted with it.

It holds what grows with the batch (digests, signatures, bands), so that the process does not.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orchestrator.ingest.records import Bad
from orchestrator.ingest.split import Choice, Side, Unit, keyed

MAX_QUARANTINE_ROWS = 10_000
_BAND_STEP = 0x61C8864680B583EB
_KEY_MASK = (1 << 63) - 1
_SCHEMA = """
CREATE TABLE rows (
  row INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, content TEXT NOT NULL, external TEXT, label TEXT, team TEXT,
  signature BLOB NOT NULL, side TEXT NOT NULL, earlier TEXT, unit INTEGER, cluster TEXT, split TEXT);
CREATE TABLE labels (content TEXT PRIMARY KEY, label TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE teams (team TEXT PRIMARY KEY, row INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE bands (key INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL);
CREATE TABLE quarantine (file TEXT NOT NULL, line INTEGER NOT NULL, reason TEXT NOT NULL, excerpt TEXT NOT NULL);
"""


class Staged(NamedTuple):
    """A row that is kept unless the split drops it; ``side`` and ``earlier`` tell of an earlier near-duplicate."""

    row: int
    digest: str
    content: str
    external: str | None
    label: str | None
    team: str | None
    signature: bytes
    side: Side
    earlier: str | None


class Final(NamedTuple):
    """A kept row with its split; ``row`` is its number in the snapshot's working copy."""

    row: int
    digest: str
    content: str
    external: str | None
    label: str | None
    cluster: str
    split: str
    signature: bytes


class Scratch:
    """One ingest's working database."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "cache_size = -32000"):
            self._db.execute(f"PRAGMA {pragma}").close()
        self._db.executescript(_SCHEMA)
        self._db.execute("BEGIN")
        self._parents = array("q")
        self._quarantined = 0

    def close(self) -> None:
        """Release the file."""
        self._db.close()

    def has(self, digest: str) -> bool:
        """Whether this batch has the document already."""
        return self._one("SELECT 1 FROM rows WHERE digest = ?", digest) is not None

    def label_of(self, content: str) -> str | None:
        """The label that the same text has in this batch."""
        label: str | None = self._one("SELECT label FROM labels WHERE content = ?", content)
        return label

    def add(self, staged: Staged, bands: Sequence[int]) -> list[tuple[int, bytes]]:
        """Keep a row; returns row and signature of earlier rows that share a band, at most two a band."""
        keys = [(value + band * _BAND_STEP) & _KEY_MASK for band, value in enumerate(bands)]
        candidates = self._candidates(keys)
        self._db.execute("INSERT INTO rows VALUES (?,?,?,?,?,?,?,?,?,NULL,NULL,NULL)", staged)
        self._db.executemany(
            "INSERT INTO bands VALUES (?,?,?) ON CONFLICT (key) DO UPDATE SET last = excluded.last",
            [(key, staged.row, staged.row) for key in keys],
        )
        self._parents.append(staged.row)
        if staged.label is not None:
            self._db.execute("INSERT OR IGNORE INTO labels VALUES (?,?)", (staged.content, staged.label))
        if staged.team is not None:
            self._join_team(staged.team, staged.row)
        return candidates

    def _candidates(self, keys: list[int]) -> list[tuple[int, bytes]]:
        marks = ",".join("?" * len(keys))
        found = self._db.execute(f"SELECT first, last FROM bands WHERE key IN ({marks})", keys)  # noqa: S608 - only marks
        rows = sorted({row for pair in found for row in pair})
        return [(row, self._one("SELECT signature FROM rows WHERE row = ?", row)) for row in rows]

    def _join_team(self, team: str, row: int) -> None:
        first = self._one("SELECT row FROM teams WHERE team = ?", team)
        if first is None:
            self._db.execute("INSERT INTO teams VALUES (?,?)", (team, row))
        else:
            self.join(first, row)

    def join(self, one: int, other: int) -> None:
        """Two rows belong to the same unit."""
        one, other = self._root(one), self._root(other)
        self._parents[max(one, other)] = min(one, other)

    def _root(self, row: int) -> int:
        while self._parents[row] != row:
            self._parents[row] = self._parents[self._parents[row]]
            row = self._parents[row]
        return row

    def quarantine(self, file: str, bad: Bad) -> None:
        """Note a bad row; after ten thousand they are counted only."""
        self._quarantined += 1
        if self._quarantined <= MAX_QUARANTINE_ROWS:
            reason = f"{bad.reason}: {bad.detail}" if bad.detail else bad.reason
            self._db.execute("INSERT INTO quarantine VALUES (?,?,?,?)", (file, bad.line, reason, bad.excerpt))

    def quarantined_rows(self) -> Iterator[list[dict[str, Any]]]:
        """The noted bad rows, a thousand at a time."""
        names = ("file", "line", "reason", "excerpt")
        cursor = self._db.execute("SELECT file, line, reason, excerpt FROM quarantine ORDER BY rowid")
        return (self._dicts(part, names) for part in _parts(cursor))

    def units(self) -> list[Unit]:
        """What must stay together, with the side that earlier batches gave it."""
        self._db.executemany(
            "UPDATE rows SET unit = ? WHERE row = ?", ((self._root(row), row) for row in range(len(self._parents)))
        )
        self._db.execute("CREATE INDEX rows_unit ON rows (unit)")
        query = """SELECT unit, coalesce(min(team), min(digest)), count(*), coalesce(min(label), ''),
                          max(side = 'train'), max(side = 'held') FROM rows GROUP BY unit ORDER BY unit"""
        return [
            Unit(number, name, size, label, "train" if train else "held" if held else "free")
            for number, name, size, label, train, held in self._db.execute(query)
        ]

    def settle(self, choice: Choice, *, key: str) -> int:
        """Give every row its split and cluster; returns how many are dropped because they match held-out rows."""
        self._db.execute("UPDATE rows SET split = 'train'")
        self._db.executemany("UPDATE rows SET split = 'heldout' WHERE unit = ?", ((unit,) for unit in choice.held))
        for unit, count in choice.by_document.items():
            self._hold_documents(unit, count, key)
        self._name_clusters()
        dropped = self._db.execute("DELETE FROM rows WHERE split = 'train' AND side = 'held'")
        return dropped.rowcount

    def hold_all(self) -> None:
        """Every row is held out, as of a fixed eval set."""
        self.units()
        self._db.execute("UPDATE rows SET split = 'heldout'")
        self._name_clusters()

    def _hold_documents(self, unit: int, count: int, key: str) -> None:
        found = self._db.execute("SELECT digest, row FROM rows WHERE unit = ?", (unit,))
        chosen = sorted((keyed(key, digest), row) for digest, row in found)[:count]
        self._db.executemany("UPDATE rows SET split = 'heldout' WHERE row = ?", ((row,) for _, row in chosen))

    def _name_clusters(self) -> None:
        """A cluster is named by the group, the earlier near-duplicate, that of the unit (of its side), or the unit."""
        self._db.execute(
            """CREATE TABLE unit_names AS SELECT unit, min(digest) AS own,
                 min(CASE WHEN side = 'train' THEN earlier END) AS train,
                 min(CASE WHEN side = 'held' THEN earlier END) AS heldout,
                 min(CASE WHEN side = 'free' THEN earlier END) AS mixed FROM rows GROUP BY unit"""
        )
        self._db.execute("CREATE UNIQUE INDEX unit_names_unit ON unit_names (unit)")
        self._db.execute(
            """UPDATE rows SET cluster = coalesce(team, earlier, (SELECT coalesce(
                 CASE rows.split WHEN 'train' THEN train ELSE heldout END, mixed, own)
                 FROM unit_names WHERE unit_names.unit = rows.unit))"""
        )

    def kept(self) -> Iterator[Final]:
        """The rows that stay, in the order of arrival."""
        columns = "row, digest, content, external, label, cluster, split, signature"
        return (Final(*found) for found in self._db.execute(f"SELECT {columns} FROM rows ORDER BY row"))  # noqa: S608

    def held_out(self) -> list[tuple[str | None, str]]:
        """Label and digest of every held-out row."""
        return self._db.execute("SELECT label, digest FROM rows WHERE split = 'heldout'").fetchall()

    def labels(self, *, held_only: bool = False) -> list[str]:
        """The labels of the kept rows, sorted."""
        where = "WHERE label IS NOT NULL" + (" AND split = 'heldout'" if held_only else "")
        return [label for (label,) in self._db.execute(f"SELECT DISTINCT label FROM rows {where} ORDER BY label")]  # noqa: S608

    def _one(self, query: str, value: object) -> Any:
        found = self._db.execute(query, (value,)).fetchone()
        return found[0] if found else None

    @staticmethod
    def _dicts(rows: Iterable[Sequence[Any]], names: Sequence[str]) -> list[dict[str, Any]]:
        return [dict(zip(names, row, strict=True)) for row in rows]


def _parts(cursor: sqlite3.Cursor, size: int = 1000) -> Iterator[list[Any]]:
    while part := cursor.fetchmany(size):
        yield part
