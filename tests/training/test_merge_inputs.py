"""What a merge makes of files as they come: tensors that no model reads, numbers that did not change, or are none."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from strategies.errors import BadPlan, Refused
from strategies.jobs.workbench import Bench
from strategies.merging.methods import maker_for
from strategies.settings.merging import (
    DareMerge,
    FisherMerge,
    LinesMerge,
    Merge,
    PcbMerge,
    SoupMerge,
    TaskArithmeticMerge,
    TiesMerge,
)
from tests import models
from tests.training import makers, toys
from tests.training.merges import adapter, merge, on, sets, shifted, weights


def rewritten(source: Path, folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Path:
    """A copy of a model with other tensors."""
    shifted(source, folder, seed=0, size=0.0)
    tensors = {name: one.contiguous() for name, one in change(weights(source)).items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


# --- tensors that no model reads ---------------------------------------------------------------------------------


@pytest.mark.parametrize("roles", [("base", "trained"), ("trained", "base")])
def test_mask_buffers_of_a_published_gpt2_are_left_aside(tmp_path: Path, gpt2: Path, roles: tuple[str, str]) -> None:
    """As on the hub: names without their prefix, and a float mask in each block."""
    masks = {f"h.{n}.attn.bias": torch.ones(1, 1, 4, 4).tril() for n in range(2)}

    def published(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.removeprefix("transformer."): one for name, one in tensors.items()} | masks

    base = rewritten(gpt2, tmp_path / "base", published)
    parents = {"base": base, "trained": shifted(gpt2, tmp_path / "trained", seed=1)}
    merge(tmp_path, base, {role: parents[role] for role in roles}, {"kind": "soup"})
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "job/out/model")
    old, new = weights(gpt2), weights(parents["trained"])
    assert all(torch.allclose(model.get_parameter(name), (old[name] + new[name]) / 2, atol=1e-7) for name in old)
    assert not any(name.endswith(".attn.bias") for name in weights(tmp_path / "job/out/model"))


def test_position_ids_of_an_older_file_are_left_aside(tmp_path: Path, bert: Path) -> None:
    first = models.bert(tmp_path / "first", labels=("calm", "angry"))
    numbers = {"bert.embeddings.position_ids": torch.arange(8)[None]}
    older = rewritten(first, tmp_path / "older", lambda tensors: tensors | numbers)
    merge(tmp_path, bert, {"first": first, "older": older}, {"kind": "soup"}, task="classification")
    makers.assert_equal(weights(tmp_path / "job/out/model"), weights(first))


def untold(folder: Path) -> Path:
    """A folder whose configuration leaves out whether embeddings are tied: of GPT-2 they are."""
    config = json.loads((folder / "config.json").read_bytes())
    assert config.pop("tie_word_embeddings")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def twice(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the head beside the embeddings that it is tied to."""
    return tensors | {"lm_head.weight": tensors["transformer.wte.weight"].clone()}


def test_a_tied_head_that_is_stored_twice_is_left_aside(tmp_path: Path, gpt2: Path) -> None:
    name = "transformer.wte.weight"
    base = untold(rewritten(gpt2, tmp_path / "base", twice))
    trained = shifted(gpt2, tmp_path / "trained", seed=1)
    merge(tmp_path, base, {"base": base, "trained": trained}, {"kind": "soup"})
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "job/out/model")
    assert model.lm_head.weight is model.transformer.wte.weight
    assert torch.allclose(model.lm_head.weight, (weights(gpt2)[name] + weights(trained)[name]) / 2, atol=1e-7)


def test_a_head_of_its_own_is_not_left_aside(tmp_path: Path, gpt2: Path) -> None:
    head = {"lm_head.weight": torch.zeros(models.VOCABULARY, 32)}
    base = untold(rewritten(gpt2, tmp_path / "base", lambda tensors: tensors | head))
    tied = untold(rewritten(gpt2, tmp_path / "tied", twice))
    parents = {"tied": tied, "trained": shifted(gpt2, tmp_path / "trained", seed=1), "base": base}
    with pytest.raises(Refused, match=r"trained has no tensor lm_head\.weight"):
        merge(tmp_path, base, parents, {"kind": "soup"})


def test_a_tensor_that_the_architecture_reads_has_to_be_in_all(tmp_path: Path, gpt2: Path) -> None:
    name = "transformer.h.1.ln_1.bias"
    less = rewritten(gpt2, tmp_path / "less", lambda tensors: {key: one for key, one in tensors.items() if key != name})
    with pytest.raises(Refused, match=rf"less has no tensor {name}"):
        merge(tmp_path, gpt2, {"whole": gpt2, "less": less}, {"kind": "soup"})


# --- numbers that did not change ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        SoupMerge(),
        TaskArithmeticMerge(),
        TaskArithmeticMerge(lam=-1),
        TiesMerge(),
        DareMerge(),
        PcbMerge(),
        FisherMerge(),
        LinesMerge(after=TiesMerge(), beta=0.5),
    ],
    ids=lambda one: one.kind,
)
def test_a_zero_keeps_its_sign_where_nothing_changed(tmp_path: Path, method: Merge) -> None:
    base = {"layers.0.w": torch.tensor([-0.0, 0.0, -0.0, 1.0])}
    parents = [{"layers.0.w": torch.tensor([-0.0, 0.0, -0.0, value])} for value in (2.0, 3.0, 4.0)]
    fishers = [{"layers.0.w": torch.ones(4)}] * 3 if isinstance(method, FisherMerge) else []
    maker = maker_for(method, toys.inputs(tmp_path, base, parents, fishers=fishers))
    assert torch.signbit(maker.tensor("layers.0.w")).tolist()[:3] == [True, False, True]


def test_what_all_models_of_a_greedy_soup_have_alike_stays_as_it_is(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sum of three equal numbers is not always three times the number."""
    moved = "model.norm.weight"

    def parent(number: int) -> Path:
        more = {moved: torch.full((32,), float(number))}
        return rewritten(llama, tmp_path / str(number), lambda tensors: tensors | more)

    parents = {str(number): parent(number) for number in (1, 2, 6)}
    better = itertools.count()
    monkeypatch.setattr(Bench, "score", lambda *_: {"new": ("accuracy", float(next(better)))})
    listed = sets(tmp_path, {"new": makers.text_documents(2)})
    result = merge(tmp_path, llama, parents, {"kind": "greedy-soup"}, sets=listed)
    assert sorted(result.facts["kept"]) == ["1", "2", "6"]
    found = weights(tmp_path / "job/out/model")
    assert set(found.pop(moved).tolist()) == {3.0}
    makers.assert_equal(found, {name: one for name, one in weights(llama).items() if name != moved})


# --- numbers that are none ---------------------------------------------------------------------------------------

METHODS: tuple[dict[str, Any], ...] = (
    {"kind": "soup"},
    {"kind": "task-arithmetic"},
    {"kind": "ties"},
    {"kind": "dare", "drop": 0.5},
    {"kind": "pcb"},
    {"kind": "greedy-soup"},
    {"kind": "lines", "alpha": 0.5, "beta": 0.5, "after": {"kind": "soup"}},
)
BACK: tuple[dict[str, Any], ...] = (
    {"kind": "interpolate"},
    {"kind": "half-reset", "names": ["model.layers.0.mlp.up_proj.weight"]},
    {"kind": "lines", "alpha": 0.5},
)
BROKEN = "model.norm.weight"


def broken(source: Path, folder: Path) -> Path:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors[BROKEN][3] = float("nan")
        return tensors

    return rewritten(source, folder, change)


@pytest.mark.parametrize("method", METHODS, ids=lambda one: one["kind"])
def test_a_parent_that_is_not_finite_is_refused_by_name(tmp_path: Path, llama: Path, method: dict[str, Any]) -> None:
    parents = {"sound": shifted(llama, tmp_path / "sound", seed=1), "broken": broken(llama, tmp_path / "broken")}
    listed = sets(tmp_path, {"new": makers.text_documents(4)}) if method["kind"] == "greedy-soup" else []
    with pytest.raises(Refused, match=rf"tensor {BROKEN} is not finite in broken"):
        merge(tmp_path, llama, parents, method, sets=listed)


@pytest.mark.parametrize("method", BACK, ids=lambda one: one["kind"])
@pytest.mark.parametrize("which", ["candidate", "the base"])
def test_going_back_says_which_of_the_two_is_not_finite(
    tmp_path: Path, llama: Path, method: dict[str, Any], which: str
) -> None:
    bad = broken(llama, tmp_path / "bad")
    base, candidate = (bad, llama) if which == "the base" else (llama, bad)
    with pytest.raises(Refused, match=rf"tensor {BROKEN} is not finite in {which}"):
        merge(tmp_path, base, {"candidate": candidate}, method)


@pytest.mark.parametrize("method", [{"kind": "soup"}, {"kind": "ties"}], ids=lambda one: one["kind"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_an_adapter_that_is_not_finite_is_refused_by_name(
    tmp_path: Path, llama: Path, method: dict[str, Any], number: float
) -> None:
    parents = {name: adapter(llama, tmp_path / name, seed=1) for name in ("one", "two")}
    file = parents["two"] / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if "layers.1.self_attn.q_proj.lora_B" in name)
    tensors[name][0, 0] = number
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(Refused, match=r"tensor model\.layers\.1\.self_attn\.q_proj\.weight is not finite in two"):
        merge(tmp_path, llama, {role: on(llama, one) for role, one in parents.items()}, method, into="adapter")


# --- weights -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "given"),
    [
        (SoupMerge(), (2, -1)),
        (SoupMerge(), (1, -1)),
        (SoupMerge(), (0, 0)),
        (LinesMerge(beta=0.5, after="soup"), (2, -1)),
    ],
)
def test_a_mean_takes_no_weight_below_zero_and_not_zeros_alone(
    tmp_path: Path, method: Merge, given: tuple[float, ...]
) -> None:
    models_ = [{"layers.0.w": torch.ones(2)}] * 2
    with pytest.raises(BadPlan, match="weights are"):
        maker_for(method, toys.inputs(tmp_path, models_[0], models_, weights=given))


def test_a_head_that_the_base_lacks_needs_weights_that_have_a_mean(tmp_path: Path) -> None:
    parents = [{"w": torch.ones(1), "classifier.weight": torch.ones(1)}] * 2
    given = toys.inputs(tmp_path, {"w": torch.zeros(1)}, parents, weights=(1, -1))
    with pytest.raises(BadPlan, match=r"the base has no classifier\.weight"):
        maker_for(TaskArithmeticMerge(), given)
