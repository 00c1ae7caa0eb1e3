"""Values that every strategy resolves: steps, warm-up, rates. Each comes with its origin."""

from __future__ import annotations

import math
from collections.abc import Iterable

from strategies.contract import Explained, Signals, SourceFacts
from strategies.contract.graph import BANK
from strategies.errors import BadPlan
from strategies.parts import CosineSchedule, Objective, TaskObjective
from strategies.settings import Task, TrainingSettings
from strategies.settings.objective import LocalObjective, TaskSettings
from strategies.words import counted

DEFAULT, SETTINGS = "default", "settings"
FEW_STEPS = 1000
"""Stages shorter than this warm up over 3 % of their steps instead of 1 % (METHODS 1.8)."""
FULL_RATES: dict[Task, float] = {"causal-lm": 3e-4, "sft": 5e-5, "classification": 5e-5}
LORA_RATE = 2e-4


def total_rows(sources: Iterable[SourceFacts]) -> int:
    """Rows of all sources together."""
    return sum(source.rows for source in sources)


def steps(training: TrainingSettings, rows: int) -> Explained:
    """Optimizer steps: passes over ``rows`` new rows in batches, whatever the share of replay."""
    if rows == 0:
        raise BadPlan("there are no rows to train on; wait for more data")
    if training.max_steps is not None:
        return Explained(value=training.max_steps, origin=f"{SETTINGS}: max_steps")
    count = math.ceil(training.num_train_epochs * rows / training.train_batch_size)
    taken = f"{counted(training.num_train_epochs, 'epoch')} of {counted(rows, 'row')}"
    origin = f"{taken} in batches of {training.train_batch_size}"
    return Explained(value=max(1, count), origin=origin)


def warmup(training: TrainingSettings, count: int) -> Explained:
    """Warm-up of a stage of ``count`` steps: 1 %, or 3 % of a short one, at least 10, at most half."""
    asked = training.warmup_steps
    if asked is not None:
        value = round(asked * count) if asked < 1 else round(asked)
        return Explained(value=min(value, count), origin=SETTINGS)
    share = 0.01 if count >= FEW_STEPS else 0.03
    value = min(max(10, round(share * count)), count // 2)
    return Explained(
        value=value, origin=f"{DEFAULT}: {share:.0%} of {counted(count, 'step')}, at least 10, at most half"
    )


def peak_rate(training: TrainingSettings, task: Task) -> Explained:
    """The stage's peak learning rate."""
    if training.learning_rate is not None:
        return Explained(value=training.learning_rate, origin=SETTINGS)
    if training.tuner == "lora":
        return Explained(value=LORA_RATE, origin=f"{DEFAULT} for lora")
    return Explained(value=FULL_RATES[task], origin=f"{DEFAULT} for {task}")


def cosine_values(signals: Signals, rows: int) -> dict[str, Explained]:
    """Lengths of a stage of one cosine over ``rows`` rows."""
    count = steps(signals.training, rows)
    return {
        "rows": Explained(value=rows, origin="measured"),
        "steps": count,
        "warmup_steps": warmup(signals.training, count.value),
    }


def common_values(signals: Signals, rate: Explained) -> dict[str, Explained]:
    """Values that stand in every plan."""
    training = signals.training
    floor = Explained(value=rate.value * training.min_learning_rate_ratio, origin="min_learning_rate_ratio of the peak")
    return {
        "tuner": Explained(value=training.tuner, origin="training.tuner"),
        "batch": Explained(value=training.train_batch_size, origin="training.train_batch_size"),
        "order": Explained(value=training.seed + signals.stage, origin="seed and stage"),
        "learning_rate": rate,
        "min_learning_rate": floor,
        "last_learning_rate": Explained(value=floor.value, origin="where the schedule ends"),
    }


def cosine(values: dict[str, Explained]) -> CosineSchedule:
    """The schedule that ``values`` describe."""
    return CosineSchedule(
        steps=values["steps"].value,
        warmup=values["warmup_steps"].value,
        lr=values["learning_rate"].value,
        min_lr=values["min_learning_rate"].value,
    )


def objective(signals: Signals, settings: TaskSettings | LocalObjective) -> Objective:
    """The task's own objective, or the local one; a bank's first task has no earlier classes to keep apart from."""
    if isinstance(settings, TaskSettings) or signals.task != "classification":
        return TaskObjective(kind=signals.task)
    return settings if BANK in signals.parent_answer else settings.model_copy(update={"orthogonality": 0.0})


def names(sources: Iterable[SourceFacts]) -> tuple[str, ...]:
    """Names of sources, in their order."""
    return tuple(source.name for source in sources)
