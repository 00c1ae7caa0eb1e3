"""Packing several examples into one row, and the proof that they cannot see each other."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from strategies.settings import Json

TOLERANCE_FP32 = 1e-5
TOLERANCE_BF16 = 2e-2
_SEGMENTS = ((5, 9, 3), (7, 2, 8))
"""Lengths of the probe's examples, a row each; rows are equally long."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Whether examples are packed. ``reason`` says why not, or ``difference`` and ``tolerance`` how it was proven."""

    passed: bool
    reason: str | None = None
    difference: float | None = None
    tolerance: float | None = None

    def facts(self) -> Json:
        """For the facts of a job."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def best_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Best-fit decreasing: each example goes where it leaves the least room. Returns the examples of each row."""
    packs: list[list[int]] = []
    rooms: list[tuple[int, int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        at = bisect_left(rooms, (lengths[index], -1))
        if at == len(rooms):
            room, pack = width, len(packs)
            packs.append([])
        else:
            room, pack = rooms.pop(at)
        packs[pack].append(index)
        if room > lengths[index]:
            insort(rooms, (room - lengths[index], pack))
    return packs


def probe(model: Any, *, vocabulary: int, autocast: Callable[[], Any], bf16: bool) -> Packing:
    """Whether ``model`` keeps packed examples apart: the largest logit difference, packed against separate.

    Tried with one row and with two. The tolerance is 1e-5 in float32 and 2e-2 in bfloat16, times the largest logit if
    that is above 1. A model that cannot take part (an error in its forward pass) counts as leaking.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    rows = [[torch.randint(vocabulary, (length,), generator=generator) for length in row] for row in _SEGMENTS]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast():
            found = [_difference(model, some, device) for some in (rows[:1], rows[1:], rows)]
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        return Packing(passed=False, reason=str(error).splitlines()[0][:200])
    finally:
        model.train(was_training)
    difference, scale = max(value for value, _ in found), max(1.0, *(value for _, value in found))
    tolerance = (TOLERANCE_BF16 if bf16 else TOLERANCE_FP32) * scale
    return Packing(passed=difference <= tolerance, difference=difference, tolerance=tolerance)


def _difference(model: Any, rows: list[list[Tensor]], device: torch.device) -> tuple[float, float]:
    ids = torch.stack([torch.cat(row) for row in rows]).to(device)
    positions = torch.stack([torch.cat([torch.arange(len(part)) for part in row]) for row in rows]).to(device)
    packed = model(input_ids=ids, position_ids=positions, use_cache=False).logits.float()
    parts = [model(input_ids=part[None].to(device), use_cache=False).logits.float() for row in rows for part in row]
    separate = torch.cat([part[0] for part in parts]).view_as(packed)
    return float((packed - separate).abs().max()), float(separate.abs().max())
