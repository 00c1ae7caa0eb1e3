"""What half fine-tuning saves: step time and optimizer memory beside full fine-tuning, paired.

``OMP_NUM_THREADS=1 python -m tests.benchmarks.half_cost --preset quick|standard``

Same model, rows and loop; only what moves differs. Runs are interleaved in one process, their order changing from turn
to turn, so that whatever else the machine does hits all alike; a ratio is of two runs of the same turn. On the CPU a
step costs processor time, on a GPU (where there is one) time on the clock between synchronised steps.

The bound (METHODS 2.4): a step is a forward pass, the gradients of activations and the gradients of weights, each one
product a matrix. Freezing a matrix spares the last of the three for it, so a step keeps at least
``1 - frozen / (3 * all)`` of its products, by weights of the matrices that rows are multiplied with; below the lowest
block that moves, the gradients of activations are spared too. What attention, norms and the loss cost comes on top.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from strategies.contract import Parameter
from strategies.libraries import library_versions
from strategies.parts import FullSelection, HalfSelection, Selection
from strategies.selection import half
from strategies.settings import Json
from strategies.settings.selection import HalfSettings
from strategies.training.objective import token_loss
from strategies.training.parameters import moving, optimizer_for, prepare
from strategies.training.table import parameter_table
from tests.benchmarks.harness import small_main
from tests.benchmarks.overhead import SETTINGS, interval, schedule_of

WARM = 3
MEMORY_GOAL = 0.02
"""Optimizer memory may exceed the trainable share of the parameters by this."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """A Llama-like model with tied embeddings, what a step takes, and how many steps are timed in a turn."""

    hidden: int
    layers: int
    vocabulary: int
    rows: int
    length: int
    steps: int


SIZES = {
    "5M": Size(hidden=256, layers=4, vocabulary=8192, rows=8, length=128, steps=6),
    "30M": Size(hidden=512, layers=8, vocabulary=8192, rows=4, length=128, steps=4),
    "160M": Size(hidden=1024, layers=12, vocabulary=8192, rows=1, length=128, steps=3),
}
"""The head, which always moves, is two fifths of the smallest and a twentieth of the largest."""
GPU_SIZES = {"350M": Size(hidden=1024, layers=24, vocabulary=32768, rows=8, length=1024, steps=10)}
ARMS = ("full", "half", "bottom")
TURNS = {"quick": 3, "standard": 15}


def model_of(size: Size) -> Any:
    """The model, the same every time."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.hidden,
        intermediate_size=int(size.hidden * 2.75),
        num_hidden_layers=size.layers,
        num_attention_heads=size.hidden // 64,
        num_key_value_heads=size.hidden // 64,
        max_position_embeddings=size.length,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return transformers.LlamaForCausalLM(config).train()


def selection_of(arm: str, table: Sequence[Parameter]) -> Selection:
    """What moves: all, half of every layer's matrices, or the upper half of the layers."""
    if arm == "full":
        return FullSelection()
    settings = HalfSettings(level="category" if arm == "half" else "bottom")
    return half.choose(table, settings=settings, seed=1234, stage=1, lora=None)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One timed run: milliseconds a step, and bytes of the optimizer's state and of all memory at its peak."""

    step_ms: float
    optimizer_bytes: int
    peak_bytes: int | None


class Clock:
    """Processor time on the CPU; on a GPU the time until everything that was asked of it is done."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def __call__(self) -> float:
        if self._device.type == "cpu":
            return time.process_time()
        torch.cuda.synchronize(self._device)
        return time.perf_counter()


def run(arm: str, size: Size, device: torch.device) -> Turn:
    """Train a fresh model for some steps."""
    model = model_of(size)
    model = prepare(model, selection_of(arm, parameter_table(model)), task="causal-lm", adapter=None, labels=(), seed=0)
    model = model.to(device)
    parameters = moving(model)
    optimizer = optimizer_for(parameters, schedule_of(size.steps + WARM), SETTINGS)
    ids = torch.randint(0, size.vocabulary, (size.rows, size.length + 1), generator=torch.Generator().manual_seed(1))
    inputs, targets = ids[:, :-1].to(device), ids[:, 1:].to(device)
    clock, began = Clock(device), 0.0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for step in range(size.steps + WARM):
        if step == WARM:
            began = clock()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            logits = model(input_ids=inputs, use_cache=False).logits
        (token_loss(logits.float(), targets) / targets.numel()).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return Turn(
        step_ms=1e3 * (clock() - began) / size.steps,
        optimizer_bytes=state_bytes(optimizer),
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of everything that an optimizer keeps."""
    tensors = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def bound(table: Sequence[Parameter], selection: Selection) -> float:
    """Least share of a step's products that remains, see above; ``table`` is of a model with a tied head."""
    if not isinstance(selection, HalfSelection):
        return 1.0
    matrices = {one.name: one.numel for one in table if len(one.shape) == 2}
    spared = sum(matrices.get(name, 0) for name in selection.frozen)
    # Below the lowest block that moves no activation needs a gradient either.
    spared *= 2 if selection.level == "bottom" else 1
    return 1 - spared / (3 * sum(matrices.values()))


def shares(table: Sequence[Parameter], arm: str) -> Json:
    """What an arm promises: the share of parameters that move, and the bound of its step."""
    selection = selection_of(arm, table)
    moved = half.new_share(table, selection) if isinstance(selection, HalfSelection) else 1.0
    return {"trainable_share": moved, "step_bound": bound(table, selection)}


def measure(size: Size, repeats: int, device: torch.device) -> Json:
    """All arms in turn; ratios to full of the same turn."""
    turns: dict[str, list[Turn]] = {arm: [] for arm in ARMS}
    for turn in range(repeats):
        at = turn % len(ARMS)
        for arm in ARMS[at:] + ARMS[:at]:
            turns[arm].append(run(arm, size, device))
    table = parameter_table(model_of(size))
    return {
        "parameters": sum(one.numel for one in table),
        "arms": {arm: shares(table, arm) | _figures(turns[arm], turns["full"]) for arm in ARMS},
    }


def _figures(own: Sequence[Turn], full: Sequence[Turn]) -> Json:
    """Medians of one arm, and how they stand to full fine-tuning's."""
    peaks = [one.peak_bytes for one in own if one.peak_bytes is not None]
    return {
        "step_ms": statistics.median(one.step_ms for one in own),
        "step_ratio": interval([a.step_ms / b.step_ms for a, b in zip(own, full, strict=True)]),
        "optimizer_bytes": own[0].optimizer_bytes,
        "optimizer_ratio": own[0].optimizer_bytes / full[0].optimizer_bytes,
        "peak_bytes": max(peaks) if peaks else None,
    }


def measured(turns: int) -> Json:
    """Every size on the CPU, and on a GPU where there is one."""
    torch.set_num_threads(1)
    found = {name: measure(size, turns, torch.device("cpu")) for name, size in SIZES.items()}
    gpu: Json = {}
    if torch.cuda.is_available():
        gpu = {name: measure(size, turns, torch.device("cuda")) for name, size in GPU_SIZES.items()}
    return {
        "threads": torch.get_num_threads(),
        "load": os.getloadavg(),
        "versions": library_versions(),
        "gpu": torch.cuda.get_device_name() if gpu else None,
        "sizes": {"cpu": found, "gpu": gpu},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the JSON."""
    return small_main("half_cost", TURNS, measured, argv)


if __name__ == "__main__":
    sys.exit(main())
