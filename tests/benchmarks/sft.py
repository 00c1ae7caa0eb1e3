"""Instruction tuning that goes on: six families of tasks in turn, and what is left of the first ones at the end.

``python -m tests.benchmarks.sft --preset quick|standard|full [--model DIR] [--data DIR]``

After each family the loss of the answers on every family's test file, and on a general one that nobody trains on; on
scan, whose answers are exact, the share of exact matches too. OP is the mean over families at the end, BWT how much the
earlier ones changed since they were learned (divided by the families but one), both of losses with their sign turned.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from strategies.contract import EvalFile, ModelFiles
from strategies.settings import Json, Task
from tests.benchmarks import grid, harness, lineup
from tests.benchmarks.batches import HELD_OUT, Batch, documents, write_batch, write_set
from tests.benchmarks.cells import Carry
from tests.benchmarks.grid import Grid
from tests.benchmarks.harness import Record
from tests.benchmarks.inputs import model_files, packed_or_plain, rows_of
from tests.benchmarks.lineup import Arm, Stream, Streams

TASK: Task = "sft"
FAMILIES = ("nl2sql", "data2text", "mathwords", "nl2bash", "scan", "code2doc")
GENERAL = "general"
EXACT = "scan"
TUNED_ON = ("nl2sql", "scan")
RATES = (1e-4, 3e-4, 1e-3)
ADAPTER_RATES = (3e-3, 1e-2, 3e-2)
NAIVE = Arm(name="naive", strategy={"name": "naive"})
ARMS = (
    NAIVE,
    Arm(name="replay", strategy={"name": "rewarm-replay"}),
    Arm(name="half", strategy={"name": "half-finetune"}),
    Arm(name="half, replay", strategy={"name": "half-finetune", "mixing": "replay"}),
    Arm(name="mos", strategy={"name": "mos"}, training={"tuner": "lora"}, rates=ADAPTER_RATES),
)


@dataclass(frozen=True, kw_only=True)
class Preset(lineup.Preset):
    """How much is done: examples of a family, passes over them, documents of a test file."""

    examples: int
    tuning_examples: int
    epochs: float
    test: int
    train_batch_size: int = 8
    max_length: int = 256


PRESETS = {
    "smoke": Preset(
        name="smoke",
        examples=20,
        tuning_examples=20,
        tuning_held_out=0.5,
        epochs=1,
        test=2,
        seeds=(1234,),
        train_batch_size=4,
        max_length=32,
    ),
    "quick": Preset(
        name="quick", examples=100, tuning_examples=50, tuning_held_out=0.2, epochs=2, test=30, seeds=(1234,)
    ),
    "standard": Preset(name="standard", examples=500, tuning_examples=150, epochs=3, test=100, seeds=(1234,)),
    "full": Preset(name="full", examples=500, tuning_examples=500, epochs=5, test=300, seeds=(1234, 2345, 3456)),
}


def streams(model: Path, folder: Path, place: Path, preset: Preset) -> Streams:
    """The six families, one a stage, and the two that rates are tuned on."""
    files = ModelFiles(path=str(model))
    fixed = tuple(_fixed(folder, place, name, preset.test, 1 + at) for at, name in enumerate((*FAMILIES, GENERAL)))
    stages = _stages(folder, place / "batches", FAMILIES, preset.examples, HELD_OUT)
    tuned_on = _stages(folder, place / "tuning", TUNED_ON, preset.tuning_examples, preset.tuning_held_out)
    return Streams(
        tuning=Stream(task=TASK, model=files, stages=tuned_on),
        stream=Stream(task=TASK, model=files, stages=stages, fixed=fixed, exact=(EXACT,)),
    )


def needs(model: Path, data: Path, preset: Preset) -> Iterator[Path]:
    """Files that every preset reads."""
    yield from model_files(model)
    yield from (data / "sft" / f"{name}.train.jsonl" for name in FAMILIES)
    yield from (data / "sft" / f"{name}.test.jsonl" for name in (*FAMILIES, GENERAL))


def _stages(folder: Path, place: Path, names: Iterable[str], count: int, held_out: float) -> tuple[Batch, ...]:
    return tuple(_batch(folder, place, name, count, held_out) for name in names)


def _batch(folder: Path, place: Path, name: str, count: int, held_out: float) -> Batch:
    found = documents(_rows(folder, name, "train", count), TASK)
    return write_batch(place, found, TASK, name=name, number=1 + FAMILIES.index(name), held_out=held_out)


def _fixed(folder: Path, place: Path, name: str, count: int, number: int) -> EvalFile:
    found = documents(_rows(folder, name, "test", count), TASK)
    return write_set(place / "fixed", found, TASK, name=name, number=number)


def _rows(folder: Path, name: str, split: str, count: int) -> Iterator[Json]:
    """The first rows of a file; its order is a random one already."""
    return islice(rows_of(packed_or_plain(folder / f"{name}.{split}.jsonl")), count)


def measure(model: Path, data: Path, preset: Preset, *, carry: Carry) -> Record:
    """All families under every arm."""
    place = harness.CACHE / "sft" / preset.name
    training: Json = {
        "train_batch_size": preset.train_batch_size,
        "num_train_epochs": preset.epochs,
        "max_length": preset.max_length,
        "save_seconds": 1e9,
    }
    made = streams(model, data / "sft", place / "texts", preset)
    found = lineup.run(
        preset.of(ARMS),
        made,
        rates=RATES,
        seeds=preset.seeds,
        training=training,
        place=place,
        carry=carry,
        reference=NAIVE,
    )
    return {"preset": asdict(preset), "families": found, "side_by_side_s": lineup.side_by_side_s([found])}


GRID = Grid(name="sft", presets=PRESETS, measure=measure, needs=needs, arms=ARMS)


def main(argv: list[str] | None = None) -> int:
    """Run a preset and write its JSON; 1 with one line if the data is not there."""
    return grid.main(GRID, argv)


if __name__ == "__main__":
    sys.exit(main())
