"""Batches and eval sets as ingest leaves them: canonical documents, digests, a tenth held out, sets in two halves."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import parquet

from orchestrator.ingest import split
from orchestrator.ingest.normalise import Normal, Normaliser
from orchestrator.ingest.snapshots import Writer, batch_schema, eval_schema, halves
from orchestrator.settings import SourceSettings
from strategies.contract import EvalFile, SourceFile
from strategies.settings import Task
from tests.benchmarks.inputs import file_hash

HELD_OUT = 0.1
Rows = Iterable[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A batch's snapshot, and the eval set of what was held out of it."""

    source: SourceFile
    heldout: EvalFile
    documents: int
    labels: tuple[str, ...] = ()

    def as_old(self) -> SourceFile:
        """The snapshot as an earlier batch."""
        return self.source.model_copy(update={"role": "old"})


def documents(rows: Rows, task: Task, *, apart: Collection[str] = ()) -> list[Normal]:
    """Canonical documents of rows, each once, without those whose digest is in ``apart``."""
    normalise = Normaliser(task, SourceSettings())
    found = {one.digest: one for one in map(normalise, rows)}
    return [one for digest, one in found.items() if digest not in apart]


def write_batch(
    folder: Path, found: list[Normal], task: Task, *, name: str, number: int, held_out: float = HELD_OUT
) -> Batch:
    """Write a batch's snapshot and its eval set below ``folder``; ``number`` is unique in the stream."""
    folder.mkdir(parents=True, exist_ok=True)
    held = _held_out(found, held_out)
    path = folder / f"{name}.parquet"
    with Writer(path, batch_schema(task)) as out:
        for row, one in enumerate(found):
            side = "heldout" if row in held else "train"
            out.add({"row": row, "digest": one.digest, "external_id": None, "split": side, **one.fields})
    source = SourceFile(name=name, batch=number, path=str(path), sha256=file_hash(path), role="new")
    heldout = write_set(folder, [found[row] for row in sorted(held)], task, name=f"{name}-heldout", number=number)
    labels = tuple(sorted({one.label for one in found if one.label is not None}))
    return Batch(source=source, heldout=heldout, documents=len(found), labels=labels)


def write_set(folder: Path, found: list[Normal], task: Task, *, name: str, number: int) -> EvalFile:
    """Write an eval set."""
    folder.mkdir(parents=True, exist_ok=True)
    half = halves((one.label, one.digest) for one in found)
    path = folder / f"{name}.parquet"
    with Writer(path, eval_schema(task)) as out:
        for one in found:
            out.add({"digest": one.digest, "half": half[one.digest], **one.fields})
    return EvalFile(id=number, name=name, path=str(path), sha256=file_hash(path))


def select_half(file: EvalFile) -> tuple[EvalFile, int]:
    """The ``select`` half of an eval set as a set of its own, and its documents."""
    found = parquet.read_table(file.path, filters=[("half", "=", "select")])
    path = Path(file.path).with_suffix(".select.parquet")
    parquet.write_table(found, path)
    return file.model_copy(update={"path": str(path), "sha256": file_hash(path)}), int(found.num_rows)


def _held_out(found: list[Normal], share: float) -> frozenset[int]:
    units = [
        split.Unit(number=row, name=one.digest, size=1, label=one.label or "", side="free")
        for row, one in enumerate(found)
    ]
    return frozenset(split.choose(units, share=share, key="benchmark").held)
