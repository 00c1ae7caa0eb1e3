"""Batch snapshots on disk: verified before use, read by column, only the side that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from storage.files import sha256_file
from strategies.contract import EvalFile, SourceFile
from strategies.contract.domains import CLASS_COLUMN
from strategies.errors import Refused
from strategies.settings import Task

COLUMNS: dict[Task, tuple[str, ...]] = {
    "causal-lm": ("text",),
    "sft": ("messages",),
    "classification": ("text", "label"),
}
Tick = Callable[[], None]
"""Called now and then during long work; may raise."""
CHUNK = 1000
"""Documents tokenised at a time."""


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Documents of one file, ordered by digest: the same order whatever arrived first, and in every stage.

    ``rows`` are their row numbers in the file, ``size`` is the number of rows in the file, ``table`` has the task's
    columns and the class that documents declare, where there is one.
    """

    rows: NDArray[np.int64]
    digests: list[str]
    size: int
    table: Any

    def __len__(self) -> int:
        return len(self.digests)

    def column(self, name: str) -> list[Any]:
        """All values of one column."""
        return list(self.table.column(name).to_pylist())

    def chunks(self, name: str) -> Iterator[list[Any]]:
        """Values of one column, :data:`CHUNK` at a time."""
        for start in range(0, len(self), CHUNK):
            yield self.table.column(name).slice(start, CHUNK).to_pylist()

    def first(self, count: int) -> Documents:
        """The ``count`` documents of the lowest digests."""
        return Documents(
            rows=self.rows[:count], digests=self.digests[:count], size=self.size, table=self.table.slice(0, count)
        )

    def where(self, chosen: NDArray[np.bool_]) -> Documents:
        """The documents with a flag, in their order."""
        digests = list(compress(self.digests, chosen.tolist()))
        return Documents(rows=self.rows[chosen], digests=digests, size=self.size, table=self.table.filter(chosen))


def training_side(source: SourceFile, task: Task) -> Documents:
    """Documents of a snapshot that may be trained on."""
    table = _read(source.path, source.sha256, ("row", "digest", "split", *COLUMNS[task]))
    size = max(pc.max(table.column("row")).as_py() + 1, table.num_rows) if table.num_rows else 0
    return _ordered(table.filter(pc.equal(table.column("split"), "train")), size)


def cut(source: SourceFile, task: Task, folder: Path, *, documents: int) -> SourceFile:
    """A file of the source's first training documents by digest; the whole source where it has no more."""
    table = _read(source.path, source.sha256, ("row", "digest", "split", *COLUMNS[task]))
    training = table.filter(pc.equal(table.column("split"), "train"))
    if training.num_rows <= documents:
        return source
    order = pc.sort_indices(training, sort_keys=[("digest", "ascending"), ("row", "ascending")])
    path = folder / f"{source.name}.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(training.take(order[:documents]), path)
    return source.model_copy(update={"path": str(path), "sha256": sha256_file(path)})


def eval_side(file: EvalFile, task: Task, *, half: Literal["select"] | None = None) -> Documents:
    """Documents of an eval set; column ``half`` is select or judge. Given ``half``, only that one."""
    table = _read(file.path, file.sha256, ("digest", "half", *COLUMNS[task]))
    rows = pa.array(np.arange(table.num_rows, dtype=np.int64))
    numbered = table.append_column("row", rows)
    if half is not None:
        numbered = numbered.filter(pc.equal(numbered.column("half"), half))
    return _ordered(numbered, table.num_rows)


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Digests of the documents of each eval set, by its name: none of them may be trained on."""

    digests: dict[str, frozenset[str]]

    @classmethod
    def of(cls, forbidden: Sequence[EvalFile]) -> Self:
        """Read them; two sets of one name count as one."""
        found: dict[str, frozenset[str]] = {}
        for file in forbidden:
            own = _read(file.path, file.sha256, ("digest",)).column("digest").to_pylist()
            found[file.name] = found.get(file.name, frozenset()).union(own)
        return cls(digests=found)

    @property
    def documents(self) -> int:
        """How many documents training is compared with."""
        return sum(map(len, self.digests.values()))

    def refuse(self, name: str, documents: Documents) -> None:
        """Refuse if a document of the training source ``name`` is in one of the eval sets."""
        for held_out, digests in self.digests.items():
            leaked = digests.intersection(documents.digests)
            if leaked:
                raise Refused(
                    f"{len(leaked)} training documents of {name} are in eval set {held_out}, such as {min(leaked)}; "
                    "the score would be worthless: ingest the batch again"
                )


def _ordered(table: Any, size: int) -> Documents:
    table = table.take(pc.sort_indices(table, sort_keys=[("digest", "ascending"), ("row", "ascending")]))
    return Documents(
        rows=table.column("row").to_numpy().astype(np.int64),
        digests=table.column("digest").to_pylist(),
        size=size,
        table=table.drop_columns(["row", "digest"]),
    )


def _read(path: str, sha256: str, columns: tuple[str, ...]) -> Any:
    try:
        found = sha256_file(Path(path))
        if found != sha256:
            raise Refused(f"{path} has sha256 {found[:12]}…, not {sha256[:12]}…; restore it from a backup")
        has_class = "split" in columns or "half" in columns
        extra = [CLASS_COLUMN] if has_class and CLASS_COLUMN in pq.read_schema(path).names else []
        return pq.read_table(path, columns=[*columns, *extra], use_threads=False)
    except FileNotFoundError as error:
        raise Refused(f"{path} is missing; restore it from a backup") from error
    except (pa.ArrowInvalid, KeyError) as error:
        raise Refused(f"{path} is not a snapshot with the columns {', '.join(columns)}: {error}") from error
