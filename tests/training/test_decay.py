"""Weight decay acts on matrices alone."""

from __future__ import annotations

import torch
from torch import nn

from strategies.training.decay import decay_groups


def test_matrices_decay_and_vectors_do_not() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3))
    matrix, *vectors = model.parameters()
    assert decay_groups(model.parameters(), 0.1) == [
        {"params": [matrix], "weight_decay": 0.1},
        {"params": vectors, "weight_decay": 0.0},
    ]


def test_a_group_without_members_is_left_out() -> None:
    matrix = nn.Parameter(torch.zeros(2, 2))
    assert decay_groups([matrix], 0.1) == [{"params": [matrix], "weight_decay": 0.1}]
