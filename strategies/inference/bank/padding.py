"""Token ids of different lengths as one tensor; always padded on the right, whatever side a tokenizer pads on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def padded(parts: Sequence[Any], fill: int) -> tuple[Tensor, Tensor]:
    """Lists or arrays of ids as (rows, length), filled up with ``fill``, and the mask of what is no padding; int64."""
    ids = torch.full((len(parts), max(map(len, parts))), fill, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, part in enumerate(parts):
        ids[row, : len(part)] = torch.as_tensor(part, dtype=torch.int64)
        mask[row, : len(part)] = 1
    return ids, mask
