"""PCB merging: the golden values of METHODS 7.2, and that a model is one flat vector however it is cut into tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from strategies.errors import Refused
from strategies.merging.methods import maker_for
from strategies.merging.ranks import find_places
from strategies.settings.merging import PcbMerge
from tests.training import makers, toys
from tests.training.merges import adapter, changed, changes, folded, merge, on, weights


def pcb(tmp_path: Path, parents: list[dict[str, Tensor]], **settings: float) -> Tensor:
    base = {name: torch.zeros_like(one) for name, one in parents[0].items()}
    return toys.merged(PcbMerge(**settings), toys.inputs(tmp_path, base, parents))


@pytest.mark.parametrize("cut", [5, 3, 1])
@pytest.mark.parametrize(("clip", "expected"), [(1e-4, [0, 0, 0, 0.6, 0.3]), (0, [0, 0, 0, 0.65, 0.3])])
def test_pcb_gives_the_golden_vector(tmp_path: Path, clip: float, expected: list[float], cut: int) -> None:
    found = pcb(tmp_path, toys.flat(toys.ROWS, cut=cut), ratio=0.4, lam=1, clip=clip)
    assert torch.allclose(found, torch.tensor(expected), atol=1e-6)


def reference(rows: Tensor, *, ratio: float, clip: float) -> Tensor:
    """METHODS 7.2 on whole vectors, (parents, numbers), by sorting."""

    def between(values: Tensor, low: int, high: int) -> Tensor:
        ordered = values.sort(1).values
        return values.clamp(ordered[:, low, None], ordered[:, high, None])

    def minmax(values: Tensor) -> Tensor:
        low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
        return (values - low) / (high - low)

    count, size = rows.shape
    sizes = between(rows.abs(), int(size * clip), int(size * (1 - clip) - 1))
    scores = (count * minmax(sizes) ** 2).exp() * torch.tanh(rows * rows.sum(0))
    weights = minmax(between(scores, int(size * (1 - ratio)), size - 1))
    return (rows.sign() * sizes * weights).sum(0) / weights.sum(0).clamp(min=1e-12)


@pytest.mark.parametrize("clip", [0.0, 0.005, 0.05])
@pytest.mark.parametrize("seed", range(3))
def test_several_tensors_give_what_one_flat_vector_gives(tmp_path: Path, clip: float, seed: int) -> None:
    rows = torch.randn(3, 1000, generator=torch.Generator().manual_seed(seed))
    parents = [
        {name: part.reshape(-1, 20) for name, part in zip("abc", row.split([100, 300, 600]), strict=True)}
        for row in rows
    ]
    whole = pcb(tmp_path / "whole", [{"a": row} for row in rows], ratio=0.1, lam=1.2, clip=clip)
    assert torch.equal(pcb(tmp_path / "cut", parents, ratio=0.1, lam=1.2, clip=clip), whole)
    assert torch.allclose(whole, 1.2 * reference(rows, ratio=0.1, clip=clip), atol=1e-5)


def test_changes_are_counted_from_the_base(tmp_path: Path) -> None:
    base = {"a": torch.tensor([1.0, 2, 3, 4, 5])}
    parents = [{"a": base["a"] + torch.tensor(row)} for row in toys.ROWS]
    found = maker_for(PcbMerge(ratio=0.4, lam=0.5), toys.inputs(tmp_path, base, parents)).tensor("a")
    assert torch.allclose(found, base["a"] + torch.tensor([0, 0, 0, 0.3, 0.15]), atol=1e-6)


@pytest.mark.parametrize("ratio", [0.1, 1.0])
def test_models_that_did_not_change_stay(tmp_path: Path, ratio: float) -> None:
    assert pcb(tmp_path, [{"a": torch.zeros(9)}] * 2, ratio=ratio).tolist() == [0] * 9


def test_a_hundred_parents_do_not_overflow(tmp_path: Path) -> None:
    rows = torch.randn(100, 50, generator=torch.Generator().manual_seed(1))
    assert torch.isfinite(pcb(tmp_path, [{"a": row} for row in rows])).all()


def test_a_rank_is_found_among_numbers_of_any_sign_and_size() -> None:
    made = torch.Generator().manual_seed(0)
    tensors = {f"t{n}": torch.randn(2, 9, n + 1, generator=made) * 10.0 ** (9 * n - 20) for n in range(4)}
    tensors["zeros"] = torch.tensor([[[0.0, -0.0]], [[-0.0, 5.0]]])
    wholes = [torch.cat([one[at].reshape(-1) for one in tensors.values()]) for at in (0, 1)]
    size = len(wholes[0])
    found = find_places(list(tensors), tensors.__getitem__, lambda size: range(1, size + 1), count=2)
    for whole, places in zip(wholes, found, strict=True):
        assert [one.value for one in places] == whole.sort(descending=True).values.tolist()
        assert [one.above for one in places] == [int((whole > one.value).sum()) for one in places]
        assert [one.rank for one in places] == list(range(1, size + 1))


def test_a_number_that_is_not_finite_is_refused_by_name() -> None:
    with pytest.raises(Refused, match="tensor bad is not finite"):
        find_places(["bad"], lambda _: [torch.tensor([1.0, float("inf")])], lambda _: [1], count=1)


def test_pcb_of_adapters_is_pcb_of_their_products(tmp_path: Path, llama: Path) -> None:
    """Counted over the adapted numbers alone; a rank as wide as the matrices cuts nothing off."""
    paths = {role: adapter(llama, tmp_path / role, seed=n, r=32) for n, role in enumerate(("one", "two"), 1)}
    for into in ("model", "adapter"):
        merge(tmp_path / into, llama, {r: on(llama, path) for r, path in paths.items()}, {"kind": "pcb"}, into=into)
    wanted = changed(llama, 1.2 * reference(changes(llama, paths.values()), ratio=0.1, clip=1e-4))
    whole, cut = weights(tmp_path / "model/job/out/model"), folded(llama, tmp_path / "adapter/job/out/adapter")
    for name, tensor in wanted.items():
        assert torch.allclose(whole[name], tensor, atol=1e-5)
        assert torch.allclose(cut[name], tensor, atol=1e-5)
    assert {name for name, one in weights(llama).items() if not torch.equal(one, whole[name])} == wanted.keys()


def test_a_job_merges_models_that_did_not_change_to_the_same_bits(tmp_path: Path, llama: Path) -> None:
    merge(tmp_path, llama, {"one": llama, "two": llama}, {"kind": "pcb"})
    makers.assert_equal(weights(tmp_path / "job/out/model"), weights(llama))
