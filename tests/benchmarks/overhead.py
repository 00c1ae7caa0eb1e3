"""CPU time a step of our loop against a bare torch loop and transformers' Trainer.

Same model, batches, optimizer and loss kernel; interleaved in one process, so that whatever else the machine does hits
all three alike. For each size the median of paired ratios with a 95 % bootstrap interval.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.overhead --preset quick|standard
"""

from __future__ import annotations

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from strategies.inference import precision
from strategies.libraries import library_versions
from strategies.mixing.replay import ReplayMixer
from strategies.objective.causal_lm import CausalLm
from strategies.parts import CosineSchedule, ReplayMixing
from strategies.schedule import factor
from strategies.settings import Json, TrainingSettings
from strategies.training.batches import Collator
from strategies.training.checkpoint import CheckpointStore
from strategies.training.loop import Loop
from strategies.training.objective import token_loss
from strategies.training.parameters import moving, optimizer_for
from strategies.training.rows import Rows
from strategies.training.seams import Run
from tests.benchmarks.harness import small_main

LENGTH, BATCH, VOCABULARY, ROWS, WARM = 64, 8, 1024, 512, 5


@dataclass(frozen=True, kw_only=True)
class Amount:
    """Turns of each size, and by what their steps are divided."""

    turns: int
    shorter: int = 1


PRESETS = {"quick": Amount(turns=3, shorter=4), "standard": Amount(turns=24)}
SIZES = {"0.15M": (64, 2, 60), "1M": (128, 4, 24), "5M": (256, 6, 8)}
"""Hidden size, layers, timed steps."""


def model_of(hidden: int, layers: int) -> Any:
    """A Llama-like model with tied embeddings."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=int(hidden * 2.75),
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return transformers.LlamaForCausalLM(config).train()


class Stopwatch:
    """Process CPU seconds from the end of step :data:`WARM` to the end of the last step."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.spent = 0.0

    def at(self, step: int) -> None:
        if step == WARM:
            self.spent = -time.process_time()
        elif step == self.last:
            self.spent += time.process_time()

    def per_step_ms(self) -> float:
        return 1e3 * self.spent / (self.last - WARM)


class Watch:
    """What the loop reports to; its ``step`` drives a stopwatch."""

    tokens: int = 0
    loss: float | None = None
    lr: float | None = None
    stop_reason: str | None = None

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch

    @property
    def step(self) -> int:
        return 0

    @step.setter
    def step(self, value: int) -> None:
        self._stopwatch.at(value)

    def check(self) -> None:
        return


def data() -> np.ndarray:
    return np.random.default_rng(0).integers(0, VOCABULARY, (ROWS, LENGTH), dtype=np.int32)


SETTINGS = TrainingSettings(train_batch_size=BATCH, max_length=LENGTH, bf16=False, save_seconds=1e9)


def schedule_of(steps: int) -> CosineSchedule:
    return CosineSchedule(steps=steps, warmup=10, lr=3e-4, min_lr=3e-5)


def ours(model: Any, ids: np.ndarray, steps: int) -> float:
    """The loop of this project, prefetch thread and guards included."""
    places = np.arange(ROWS + 1, dtype=np.int64)
    rows = Rows(ids=ids.ravel(), bounds=places * LENGTH, documents=places[:-1], members=places, size=ROWS)
    parameters, schedule = moving(model), schedule_of(steps)
    stopwatch = Stopwatch(steps)
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(
            Run(
                model=model,
                precision=precision.choose(model, False),
                parameters=parameters,
                optimizer=optimizer_for(parameters, schedule, SETTINGS),
            ),
            objective=CausalLm(),
            parts={},
            mixing=ReplayMixer(ReplayMixing(new=("a",), batch=BATCH, order=1), {"a": ROWS}),
            collate=Collator({"a": rows}, "causal-lm", pad=0, micro=BATCH),
            schedule=schedule,
            settings=SETTINGS,
            steps=steps,
            store=CheckpointStore(Path(folder), fingerprint="benchmark", say=print),
            watch=Watch(stopwatch),
        )
        loop.train()
    return stopwatch.per_step_ms()


def bare(model: Any, ids: np.ndarray, steps: int) -> float:
    """The shortest loop that does the same arithmetic."""
    schedule, stopwatch = schedule_of(steps), Stopwatch(steps)
    parameters = dict(model.named_parameters())
    optimizer = optimizer_for(parameters, schedule, SETTINGS)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1)).repeat(1 + steps * BATCH // ROWS)
    rows = torch.from_numpy(ids).long()
    for step in range(1, steps + 1):
        batch = rows[order[(step - 1) * BATCH : step * BATCH]]
        targets = torch.full_like(batch, -100)
        targets[:, :-1] = batch[:, 1:]
        share = factor(schedule, step)
        for group in optimizer.param_groups:
            group["lr"] = schedule.lr * share
        loss = token_loss(model(input_ids=batch, use_cache=False).logits, targets) / (BATCH * (LENGTH - 1))
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        stopwatch.at(step)
    return stopwatch.per_step_ms()


class _Steps(transformers.TrainerCallback):  # type: ignore[misc]
    def __init__(self, stopwatch: Stopwatch) -> None:
        self.stopwatch = stopwatch

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.stopwatch.at(state.global_step)


def with_trainer(model: Any, ids: np.ndarray, steps: int) -> float:
    """transformers' Trainer with its checks, logs and saves off, and the same loss kernel."""
    stopwatch = Stopwatch(steps)

    class Dataset(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
        def __len__(self) -> int:
            return ROWS

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            row = torch.from_numpy(ids[index]).long()
            return {"input_ids": row, "labels": torch.cat([row[1:], torch.tensor([-100])])}

    def loss_of(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        return token_loss(outputs.logits, labels) / (BATCH * (LENGTH - 1))

    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=BATCH,
            max_steps=steps,
            learning_rate=3e-4,
            weight_decay=0.1,
            adam_beta2=0.95,
            warmup_steps=10,
            lr_scheduler_type="cosine",
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
            optim="adamw_torch_fused",
        )
        trainer = transformers.Trainer(
            model=model,
            args=arguments,
            train_dataset=Dataset(),
            compute_loss_func=loss_of,
            callbacks=[_Steps(stopwatch)],
        )
        trainer.remove_callback(transformers.PrinterCallback)  # standard output is for the figures alone
        trainer.train()
    return stopwatch.per_step_ms()


METHODS: dict[str, Callable[[Any, np.ndarray, int], float]] = {"ours": ours, "bare": bare, "trainer": with_trainer}


def interval(values: list[float]) -> dict[str, Any]:
    """Median and 95 % bootstrap interval."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(2000))
    return {"median": statistics.median(values), "low": medians[49], "high": medians[1949], "values": values}


def measure(size: str, repeats: int, shorter: int) -> dict[str, Any]:
    """All methods in turn, their order changing from turn to turn."""
    hidden, layers, steps = SIZES[size]
    steps = max(WARM + 5, steps // shorter)
    load = os.getloadavg()
    spent: dict[str, list[float]] = {name: [] for name in METHODS}
    for turn in range(repeats):
        names = list(METHODS)
        for name in names[turn % 3 :] + names[: turn % 3]:
            spent[name].append(METHODS[name](model_of(hidden, layers), data(), steps + WARM))
    pairs = {
        "ours/bare": [a / b for a, b in zip(spent["ours"], spent["bare"], strict=True)],
        "trainer/bare": [a / b for a, b in zip(spent["trainer"], spent["bare"], strict=True)],
        "ours/trainer": [a / b for a, b in zip(spent["ours"], spent["trainer"], strict=True)],
    }
    return {
        "parameters": sum(p.numel() for p in model_of(hidden, layers).parameters()),
        "steps": steps,
        "load": load,
        "cpu_ms_per_step": {name: statistics.median(values) for name, values in spent.items()},
        "ratios": {name: interval(values) for name, values in pairs.items()},
    }


def measured(amount: Amount) -> Json:
    """Every size."""
    torch.set_num_threads(1)
    return {
        "threads": torch.get_num_threads(),
        "versions": library_versions(),
        "sizes": {size: measure(size, amount.turns, amount.shorter) for size in SIZES},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the JSON."""
    return small_main("overhead", PRESETS, measured, argv)


if __name__ == "__main__":
    sys.exit(main())
