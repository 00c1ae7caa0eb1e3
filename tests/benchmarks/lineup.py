"""Arms, each with its own tuned learning rate, over one stream of stages: what every grid of the strategies is made of.

A cell is one arm with one seed and one rate over one stream. Every arm is tuned alike: three rates, one seed, a shorter
stream of its own, and of these the rate with the least mean over the ``select`` halves of all that was held out; one
that could not be carried out is no better than any.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from strategies.chooser import auto, choice
from strategies.chooser.choice import StrategySettings
from strategies.contract import EvalFile, ModelFiles, Plan, Score, Signals
from strategies.settings import Json, Task, TrainingSettings
from tests.benchmarks import harness
from tests.benchmarks.batches import HELD_OUT, Batch, select_half
from tests.benchmarks.cells import GROUPS, Carry, worked
from tests.benchmarks.harness import Record
from tests.benchmarks.inputs import Missing, file_hash
from tests.benchmarks.line import Line, Setting

TUNING_SEED = 1234
LEAST_SELECT = 3
"""Documents of every ``select`` half that rates are chosen by."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to retrain: a stream's ``strategy``, and the ``training`` that goes with it."""

    name: str
    strategy: Json
    training: Json = field(default_factory=dict)
    every: int = 1
    """Retrains once this many batches have come."""
    all_seeds: bool = True
    """False: the first seed of a preset only."""
    rates: tuple[float, ...] | None = None
    """Three rates of its own, where what it trains takes others; else those of the grid."""
    first_rates: tuple[float, ...] | None = None
    """What ``rates`` were when its first cells were kept: these go on naming all of them, for no cell follows from the
    rates beside its own."""

    def facts(self) -> Json:
        """What names its cells."""
        found = asdict(self)
        first = found.pop("first_rates")
        return found if first is None else found | {"rates": first}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How much of a grid is carried out; each grid adds its sizes."""

    name: str
    seeds: tuple[int, ...]
    arms: tuple[str, ...] = ()
    """Those that are compared; none named: all of them."""
    parts: tuple[str, ...] = ()
    """Streams or data sets, each with all arms; none named: all of them."""
    tuning_held_out: float = HELD_OUT
    """Of the batches that rates are tuned on: more where they are so few that a tenth leaves nothing to choose by."""

    def of(self, arms: Sequence[Arm]) -> tuple[Arm, ...]:
        """The arms that are compared."""
        return tuple(arm for arm in arms if arm.name in (self.arms or {arm.name}))

    def has(self, part: str) -> bool:
        """Whether a part is carried out."""
        return part in (self.parts or {part})


@dataclass(frozen=True, kw_only=True)
class Stream:
    """What an arm goes through: an anchor, then one batch a stage; ``fixed`` sets are scored and never chosen by."""

    task: Task
    model: ModelFiles
    stages: tuple[Batch, ...]
    anchor: Batch | None = None
    fixed: tuple[EvalFile, ...] = ()
    score_every: int = 1
    seen_only: bool = False
    """Score only the fixed sets of the stages so far; there is one a stage, in their order."""
    exact: tuple[str, ...] = ()
    """Fixed sets whose exact matches are counted too."""
    measured_tokens: int = 5_000
    """Of each source that is measured before a choice."""
    chosen_by: tuple[EvalFile, ...] = ()
    """Of a stream that rates are tuned on: the halves that the mean score is over, the lower the better."""

    def batches(self) -> list[Batch]:
        """Those of the stages, and the anchor."""
        return [*self.stages, *([self.anchor] if self.anchor else [])]

    def hashes(self) -> list[str]:
        """What names the stream's files."""
        files = [one.source.sha256 for one in self.batches()] + [one.sha256 for one in self.fixed]
        return [file_hash(Path(self.model.path) / "model.safetensors"), *files]


@dataclass(frozen=True, kw_only=True)
class Streams:
    """What is compared on, and the shorter stream that rates are tuned on."""

    tuning: Stream
    stream: Stream


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm, one seed and one rate over a stream; the work of one worker."""

    arm: Arm
    seed: int
    rate: float
    stream: Stream
    training: Json

    @property
    def title(self) -> str:
        """The cell in words."""
        return f"{self.arm.name}, seed {self.seed}, rate {self.rate:g}, {len(self.stream.stages)} batches"

    @property
    def named(self) -> Record:
        return {"arm": self.arm.name, "seed": self.seed, "rate": self.rate}

    def facts(self) -> Any:
        stream = [*self.stream.hashes(), self.stream.score_every, self.stream.seen_only, self.stream.exact]
        stream.append(self.stream.measured_tokens)
        return [self.arm.facts(), self.seed, self.rate, self.training, stream]

    def settings(self) -> TrainingSettings:
        """The stream's training, with what the arm and the cell change in it."""
        given = {**self.training, **self.arm.training, "learning_rate": self.rate, "seed": self.seed}
        return TrainingSettings.model_validate(given)

    def carry_out(self, folder: Path) -> Record:
        stream = self.stream
        setting = Setting(
            task=stream.task,
            model=stream.model,
            training=self.settings(),
            plan=planner(self.arm.strategy),
            anchor=stream.anchor,
            forbidden=stream.fixed,
            measured_tokens=stream.measured_tokens,
            watched=self.arm.strategy["name"] == auto.NAME,
        )
        line = self.line(folder, setting)
        base = {} if stream.seen_only else self._scored(line, stream.fixed)
        stages = [self._stage(line, *taken) for taken in grouped(stream.stages, self.arm.every)]
        found: Record = {"base": base, "stages": stages}
        if stream.chosen_by:
            found["select"] = statistics.fmean(_as_loss(one) for one in line.scores(stream.chosen_by).values())
        line.close()
        return found

    def line(self, folder: Path, setting: Setting) -> Line:
        """What retrains and is scored."""
        return Line(folder, setting)

    def _stage(self, line: Line, number: int, batches: Sequence[Batch]) -> Record:
        made = line.retrain(batches)
        due = number % self.stream.score_every == 0 or number == len(self.stream.stages)
        fixed = self.stream.fixed[:number] if self.stream.seen_only else self.stream.fixed
        return {
            "name": batches[-1].source.name,
            "batches": number,
            "scores": self._scored(line, fixed) if due else {},
            **dataclasses.asdict(made),
        }

    def _scored(self, line: Line, fixed: Sequence[EvalFile]) -> Record:
        if not fixed:
            return {}
        found: Record = {name: one.value for name, one in line.scores(fixed).items()}
        exact = [one for one in fixed if one.name in self.stream.exact]
        return found | {f"{one.name}:exact": line.exact_matches(one) for one in exact}


def grouped(stages: Sequence[Batch], every: int) -> Iterable[tuple[int, Sequence[Batch]]]:
    """How many batches have come, and those of them that are new, each time that an arm retrains."""
    for start in range(0, len(stages), every):
        taken = stages[start : start + every]
        yield start + len(taken), taken


def planner(strategy: Json) -> Callable[[Signals], Plan]:
    """The chooser with a stream's strategy."""
    return partial(choice.plan, settings=StrategySettings.model_validate(strategy))


def run(
    arms: Sequence[Arm],
    streams: Streams,
    *,
    rates: Sequence[float],
    seeds: Sequence[int],
    training: Json,
    place: Path,
    carry: Carry,
    kind: type[Cell] = Cell,
    reference: Arm | None = None,
) -> Record:
    """Tune every arm, then run it; chosen rates, what they were chosen by, and the cells.

    The arm ``reference`` also runs at the rates of the others that share its three: what a method changes shows at one
    rate alone. ``missing`` has the arms and seeds without a cell, those that ``carry`` does not give, and
    ``missing_references`` the same of ``references``. What could not be carried out is in ``failed``, and in ``tuning``
    too, with its reason.
    """
    tuning_stream, tuned_on = tuned(streams.tuning)
    cell = partial(kind, training=training)
    tried = [(arm, rate) for arm in arms for rate in arm.rates or rates]
    had = carry([cell(arm=arm, seed=TUNING_SEED, rate=rate, stream=tuning_stream) for arm, rate in tried], place)
    untuned = {arm.name for (arm, _), one in zip(tried, had, strict=True) if one is None}
    tuning = [_without_scores(one) for one in had if one and one["cell"]["arm"] not in untuned]
    chosen = {
        name: best_rate(tuning, name) for name in dict.fromkeys(one["cell"]["arm"] for one in tuning if worked(one))
    }
    harness.say(f"rates: {', '.join(f'{name} {rate:g}' for name, rate in chosen.items())}")
    asked = [(arm, seed) for seed in seeds for arm in arms if arm.all_seeds or seed == seeds[0]]
    wanted = [(arm, seed, chosen[arm.name]) for arm, seed in asked if arm.name in chosen]
    beside = [] if reference is None else _beside(reference, wanted)
    carried = wanted + beside
    made = carry([cell(arm=arm, seed=seed, rate=rate, stream=streams.stream) for arm, seed, rate in carried], place)
    cells, references = ([one for one in some if worked(one)] for some in (made[: len(wanted)], made[len(wanted) :]))
    there = {(arm.name, seed) for (arm, seed, _), one in zip(wanted, made, strict=False) if one}
    lacking = [one for one, result in zip(beside, made[len(wanted) :], strict=True) if result is None]
    return {
        "tuned_on": tuned_on,
        "tuning": tuning,
        "rates": chosen,
        "cells": cells,
        "references": references,
        "missing": [[arm.name, seed] for arm, seed in asked if (arm.name, seed) not in there],
        "missing_references": [[arm.name, seed, rate] for arm, seed, rate in lacking],
        "failed": [one for one in made if one and not worked(one)],
    }


def tuned(stream: Stream) -> tuple[Stream, dict[str, int]]:
    """A stream to tune rates on, chosen by what its gate would not judge by, and how many documents those are.

    Raises:
        Missing: too few to choose by.
    """
    halves = [select_half(one.heldout) for one in stream.batches()]
    counts = {one.name: count for one, count in halves}
    if min(counts.values()) < LEAST_SELECT:
        words = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise Missing(f"documents to choose a learning rate by: {words}; each set needs {LEAST_SELECT}")
    return replace(stream, chosen_by=tuple(one for one, _ in halves)), counts


def _names(cells: Iterable[Record]) -> list[str]:
    """Arms with a cell that was carried out."""
    return list(dict.fromkeys(one["cell"]["arm"] for one in cells if worked(one)))


def _without_scores(cell: Record) -> Record:
    return {name: value for name, value in cell.items() if name not in ("base", "stages")}


def _beside(reference: Arm, wanted: Sequence[tuple[Arm, int, float]]) -> list[tuple[Arm, int, float]]:
    """The reference at every rate at which an arm without rates of its own runs and it does not."""
    own = {(seed, rate) for arm, seed, rate in wanted if arm.name == reference.name}
    shared = {(seed, rate) for arm, seed, rate in wanted if arm.rates is None}
    return [(reference, seed, rate) for seed, rate in sorted(shared - own)]


def side_by_side_s(parts: Iterable[Record]) -> float:
    """Processor seconds of the parts' cells, over as many cores as cells run on; of kept ones too."""
    cells: list[float] = [one["cpu_s"] for part in parts for name in GROUPS for one in part[name]]
    return round(sum(cells) / harness.SLOTS, 1)


def best_rate(tuned: Iterable[Record], arm: str) -> float:
    """The rate with which an arm was best on ``select``; of equals the least, with which long streams are safer."""
    own = [one for one in tuned if one["cell"]["arm"] == arm and worked(one)]
    return float(min(own, key=lambda one: (round(one["select"], 9), one["cell"]["rate"]))["cell"]["rate"])


def _as_loss(score: Score) -> float:
    value: float = score.value
    return value if score.metric == "loss" else 1 - value
