"""Adapters merged into an adapter: what the rank cuts off is warned of, and what did not change stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from strategies.contract import JobResult
from tests.training import makers
from tests.training.merges import adapter, merge, on

FILE = "adapter_model.safetensors"


def merged(tmp_path: Path, base: Path, paths: dict[str, Path], method: dict[str, Any], **more: Any) -> JobResult:
    return merge(tmp_path, base, {role: on(base, path) for role, path in paths.items()}, method, **more)


def moved(source: Path, folder: Path, *, seed: int, part: str) -> Path:
    """A copy of an adapter in which the modules of one kind have moved."""
    adapter(source.parent / "llama", folder, seed=0)
    made = torch.Generator().manual_seed(seed)
    tensors = load_file(source / FILE)
    tensors |= {name: torch.randn(one.shape, generator=made) for name, one in tensors.items() if part in name}
    save_file(tensors, folder / FILE, {"format": "pt"})
    return folder


def apart(tensors: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: one for name, one in tensors.items() if part not in name}


@pytest.mark.parametrize(
    "method", [{"kind": "soup"}, {"kind": "ties"}, {"kind": "dare", "drop": 0.5}], ids=lambda one: one["kind"]
)
def test_a_change_that_the_rank_cuts_off_is_warned_of(tmp_path: Path, llama: Path, method: dict[str, Any]) -> None:
    paths = {str(seed): adapter(llama, tmp_path / str(seed), seed=seed, r=8) for seed in (1, 2)}
    facts = merged(tmp_path / "a", llama, paths, method, into="adapter").facts
    gap = facts["gaps"]["rank_gap"]
    assert gap > 0.1
    (found,) = (one for one in facts["warnings"] if "rank_gap" in one)
    assert f"lost {gap:.2f} of the merged change" in found
    assert "--into model" in found
    whole = merged(tmp_path / "m", llama, paths, method, into="model").facts
    assert not any("rank_gap" in one for one in whole["warnings"])


def test_a_change_that_fits_the_rank_is_not_warned_of(tmp_path: Path, llama: Path) -> None:
    path = adapter(llama, tmp_path / "one", seed=1)
    facts = merged(tmp_path, llama, {"one": path, "two": path}, {"kind": "soup"}, into="adapter").facts
    assert facts["gaps"]["rank_gap"] == pytest.approx(0, abs=1e-3)
    assert facts["warnings"] == []


@pytest.mark.parametrize("method", [{"kind": "soup"}, {"kind": "task-arithmetic"}, {"kind": "ties"}, {"kind": "pcb"}])
def test_modules_that_no_parent_changed_are_copied(tmp_path: Path, llama: Path, method: dict[str, Any]) -> None:
    (tmp_path / "llama").symlink_to(llama)
    start = adapter(llama, tmp_path / "start", seed=1)
    paths = {str(seed): moved(start, tmp_path / str(seed), seed=seed, part="v_proj") for seed in (2, 3)}
    merged(tmp_path, llama, paths, method, into="adapter", model={"adapter": str(start)})
    found, before = (load_file(path / FILE) for path in (tmp_path / "job/out/adapter", start))
    makers.assert_equal(apart(found, "v_proj"), apart(before, "v_proj"))
    assert not any(torch.equal(one, before[name]) for name, one in found.items() if "v_proj" in name)


def test_a_module_that_has_learnt_nothing_yet_can_still_learn(tmp_path: Path, llama: Path) -> None:
    """Its B is 0: with an A of zeros as well no gradient would ever reach it."""
    path = adapter(llama, tmp_path / "new", seed=1, init_lora_weights=True)
    merged(tmp_path, llama, {"one": path, "two": path}, {"kind": "task-arithmetic"}, into="adapter")
    makers.assert_equal(load_file(tmp_path / "job/out/adapter" / FILE), load_file(path / FILE))
