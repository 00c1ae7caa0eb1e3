"""Models of a few numbers on disk, for merges whose result is known by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from strategies.merging.fisher import load_importance, save_importance
from strategies.merging.inputs import Inputs, Member, gather
from strategies.merging.methods import Maker, maker_for
from strategies.merging.models import Folder
from strategies.settings.merging import Merge

ROWS = ([0.5, -0.1, 0.02, -0.8, 0.3], [0.4, 0.2, -0.6, 0.7, -0.05], [-0.9, 0.15, 0.01, 0.6, 0.25])
"""The rows of METHODS 7.1's TIES golden."""


def folder(path: Path, tensors: dict[str, Tensor], **config: object) -> Folder:
    """A Hugging Face folder of these tensors."""
    path.mkdir(parents=True)
    save_file({name: one.contiguous() for name, one in tensors.items()}, path / "model.safetensors", {"format": "pt"})
    (path / "config.json").write_text(json.dumps({"model_type": "toy", **config}))
    return Folder(path)


def inputs(
    tmp_path: Path,
    base: dict[str, Tensor],
    parents: Sequence[dict[str, Tensor]],
    *,
    weights: Sequence[float] | None = None,
    fishers: Sequence[dict[str, Tensor]] = (),
) -> Inputs:
    """A base and its parents, called m1, m2 …"""
    members = []
    for number, tensors in enumerate(parents, 1):
        fisher = None
        if fishers:
            save_importance(tmp_path / f"f{number}", fishers[number - 1], estimator="exact", examples=1)
            fisher = load_importance(tmp_path / f"f{number}")
        weight = weights[number - 1] if weights else 1.0
        model = folder(tmp_path / f"m{number}", tensors)
        members.append(Member(role=f"m{number}", model=model, weight=weight, fisher=fisher))
    return gather(folder(tmp_path / "base", base), members, task="causal-lm", copy_lone=bool(fishers))


def flat(rows: Sequence[Sequence[float]], *, cut: int = 5) -> list[dict[str, Tensor]]:
    """Each row as a model of two tensors, cut at ``cut``: a model is one flat vector, whatever its tensors are."""
    return [
        {name: part for name, part in (("a", torch.tensor(row)[:cut]), ("b", torch.tensor(row)[cut:])) if len(part)}
        for row in rows
    ]


def merged(method: Merge, given: Inputs) -> Tensor:
    """All merged tensors as one vector."""
    return joined(maker_for(method, given), given)


def joined(maker: Maker, given: Inputs) -> Tensor:
    return torch.cat([maker.tensor(name).reshape(-1) for name in given.numbers])
