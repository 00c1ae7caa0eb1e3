"""Merge jobs for tests: models and adapters that moved, and the job that merges them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from strategies.contract import JobResult
from tests.training import makers


def shifted(source: Path, folder: Path, *, seed: int, size: float = 0.01, dtype: torch.dtype | None = None) -> Path:
    """A copy of a model whose weights have moved a little."""
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    made = torch.Generator().manual_seed(seed)
    moved = {name: one + size * torch.randn(one.shape, generator=made) for name, one in tensors.items()}
    save_file(
        {name: one.to(dtype or one.dtype) for name, one in moved.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    return folder


def weights(folder: Path) -> dict[str, Tensor]:
    return dict(load_file(folder / "model.safetensors"))


def merge(
    tmp_path: Path, base: Path, parents: dict[str, Any], method: dict[str, Any], *, task: str = "causal-lm", **more: Any
) -> JobResult:
    """A merge job carried out in this process; parents are paths, or records."""
    listed = [
        {"role": role, **(one if isinstance(one, dict) else {"model": {"path": str(one)}})}
        for role, one in parents.items()
    ]
    model = more.pop("model", {})
    work = {"kind": "merge", "method": method, "parents": listed, "training": makers.training(), **more}
    return makers.carry_out(tmp_path / "job", makers.spec(work, base, task=task, model=model))


def sets(tmp_path: Path, documents: dict[str, list[dict[str, Any]]], **more: dict[str, Any]) -> list[dict[str, Any]]:
    """Eval sets of a merge by name."""
    return [
        {"file": makers.as_json(makers.held(tmp_path / f"{name}.parquet", rows, number=n)), **more.get(name, {})}
        for n, (name, rows) in enumerate(documents.items(), 1)
    ]


def adapter(
    base: Path, folder: Path, *, seed: int, r: int = 2, targets: Sequence[str] = ("q_proj", "v_proj"), **more: Any
) -> Path:
    """A LoRA adapter whose two factors are drawn at random."""
    torch.manual_seed(seed)
    made = {"task_type": "CAUSAL_LM", "lora_alpha": 4, "init_lora_weights": False, **more}
    classifier = made["task_type"] == "SEQ_CLS"
    kind = transformers.AutoModelForSequenceClassification if classifier else transformers.AutoModelForCausalLM
    config = peft.LoraConfig(r=r, target_modules=list(targets), **made)
    peft.get_peft_model(kind.from_pretrained(base), config).save_pretrained(folder)
    return folder


def folded(base: Path, folder: Path) -> dict[str, Tensor]:
    """The full model's weights under an adapter, as peft makes them."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    return dict(peft.PeftModel.from_pretrained(model, folder).merge_and_unload().state_dict())


def changes(base: Path, folders: Iterable[Path]) -> Tensor:
    """What adapters of q and v change of ``base``, as flat vectors (adapters, numbers)."""
    plain, models = weights(base), [folded(base, folder) for folder in folders]
    names = _adapted(plain)
    return torch.stack([torch.cat([(one[name] - plain[name]).flatten() for name in names]) for one in models])


def changed(base: Path, vector: Tensor) -> dict[str, Tensor]:
    """The weights of q and v with such a vector added."""
    plain = weights(base)
    names = _adapted(plain)
    parts = torch.split(vector, [plain[name].numel() for name in names])
    return {name: plain[name] + part.view_as(plain[name]) for name, part in zip(names, parts, strict=True)}


def ties(rows: Tensor, kept: int) -> Tensor:
    """METHODS 7.1 on whole vectors, (parents, numbers), of which ``kept`` numbers each stay."""
    least = rows.abs().topk(kept).values[:, -1:]
    trimmed = torch.where(rows.abs() >= least, rows, 0)
    agree = (trimmed.sign() == trimmed.sum(0).sign()) & (trimmed != 0)
    return (trimmed * agree).sum(0) / agree.sum(0).clamp(min=1)


def _adapted(plain: dict[str, Tensor]) -> list[str]:
    return [name for name in plain if "q_proj" in name or "v_proj" in name]


def on(base: Path, folder: Path) -> dict[str, Any]:
    return {"model": {"path": str(base), "adapter": str(folder)}}
