"""Half fine-tuning on real tiny models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from strategies.contract import JobResult, ModelFiles
from strategies.errors import Refused
from strategies.inference.load import load
from strategies.inference.score import Scorer
from strategies.jobs.runtime import Stopped
from strategies.parts import FrozenSlice, HalfSelection
from strategies.selection.half import choose, realised
from strategies.settings import Json, LoraSettings, Task
from strategies.settings.selection import HalfSettings
from strategies.training.loop import Loop
from strategies.training.parameters import prepare
from strategies.training.table import parameter_table
from tests import models
from tests.strategies import tables
from tests.training import makers

CPU = torch.device("cpu")
LORA = LoraSettings(r=2, lora_alpha=4)
LABELS = ["calm", "angry"]
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="session")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.small(tmp_path_factory.mktemp("untied"), "llama-gqa")


@pytest.fixture(scope="session")
def phi3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.small(tmp_path_factory.mktemp("phi3"), "phi3")


def task_of(folder: Path) -> Task:
    return "classification" if folder.name.startswith(("bert", "distilbert", "modernbert")) else "causal-lm"


def drawn(folder: Path, *, stage: int = 1, lora: LoraSettings | None = None, **settings: Any) -> HalfSelection:
    model = load(ModelFiles(path=str(folder), labels=tuple(LABELS)), task_of(folder), device=CPU).model
    return choose(parameter_table(model), settings=HalfSettings(**settings), seed=3, stage=stage, lora=lora)


def half_job(tmp_path: Path, folder: Path, selection: HalfSelection, **changes: Any) -> dict[str, Any]:
    task = task_of(folder)
    documents = makers.labelled(24, LABELS) if task == "classification" else makers.text_documents(20)
    job = makers.train_job(tmp_path, folder, documents, task=task, selection=makers.as_json(selection), **changes)
    job["model"]["labels"] = LABELS if task == "classification" else []
    return job


def ran(tmp_path: Path, folder: Path, selection: HalfSelection, **changes: Any) -> tuple[Weights, Weights, Json]:
    """The weights before and after a stage, from file to file, and the job's facts."""
    result = makers.carry_out(tmp_path / "job", half_job(tmp_path, folder, selection, **changes))
    return stored(folder), stored(tmp_path / "job" / "out" / "model"), result.facts


def stored(folder: Path) -> Weights:
    return dict(load_file(folder / "model.safetensors"))


def split(tensor: torch.Tensor, parts: Sequence[FrozenSlice]) -> tuple[torch.Tensor, torch.Tensor]:
    """The slices of a fused tensor that stay, and what lies between them."""
    stays = torch.zeros(tensor.shape[parts[0].dim], dtype=torch.bool)
    for part in parts:
        stays[part.start : part.stop] = True
    turned = tensor.transpose(0, parts[0].dim)
    return turned[stays], turned[~stays]


def assert_half_moved(selection: HalfSelection, before: Weights, after: Weights) -> None:
    """What stays is the same bit for bit; all else is different."""
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        if name in selection.slices:
            (kept, moved), (kept_now, moved_now) = (split(t, selection.slices[name]) for t in (tensor, after[name]))
            assert torch.equal(kept, kept_now), name
            assert (moved != moved_now).any(0).all(), name
        elif not name.startswith("classifier"):
            assert torch.equal(tensor, after[name]) == (name in selection.frozen), name


@pytest.mark.parametrize("name", ["llama", "untied", "gpt2", "phi3", "bert"])
@pytest.mark.parametrize("level", ["category", "model", "layer", "bottom"])
def test_what_stays_is_bit_identical_and_all_else_moves(
    tmp_path: Path, name: str, level: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    selection = drawn(folder, level=level)
    before, after, _ = ran(tmp_path, folder, selection, training={"weight_decay": 0.1})
    assert_half_moved(selection, before, after)


@pytest.mark.parametrize(
    "name", ["mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "opt", "distilbert", "modernbert"]
)
def test_half_of_any_known_shape_stays_as_it_was(tmp_path: Path, name: str) -> None:
    folder = models.small(tmp_path / name, name)
    selection = drawn(folder)
    before, after, _ = ran(tmp_path, folder, selection, training={"weight_decay": 0.1})
    assert_half_moved(selection, before, after)


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3", "bert"])
def test_the_optimizer_knows_nothing_of_what_stays(tmp_path: Path, name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    selection = drawn(folder)
    loop = makers.loop(tmp_path / "job", half_job(tmp_path, folder, selection, steps=2))
    loop.train()
    kept = sum(tensor.numel() for name, tensor in stored(folder).items() if name in selection.frozen)
    kept += sum(split(stored(folder)[name], parts)[0].numel() for name, parts in selection.slices.items())
    total = sum(parameter.numel() for parameter in loop.run.model.parameters())
    held = sum(state["exp_avg"].numel() for state in loop.run.optimizer.state.values())
    assert held == total - kept == sum(parameter.numel() for parameter in loop.run.parameters.values())
    assert len(loop.run.optimizer.state) == len(loop.run.parameters)


@pytest.mark.parametrize("name", ["llama", "gpt2", "phi3"])
def test_splitting_a_matrix_changes_no_output(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    model = load(ModelFiles(path=str(folder)), "causal-lm", device=CPU).model
    ids = torch.arange(4, 20)[None]
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        halved = prepare(model, drawn(folder), task="causal-lm", adapter=None, labels=(), seed=1)
        assert torch.equal(whole, halved(input_ids=ids).logits)


def test_a_split_matrix_moves_as_its_part_of_the_whole_would(tmp_path: Path, gpt2: Path) -> None:
    """One step without clipping: what moves takes the very step that training in full would take."""
    plain = models.gpt2(tmp_path / "m", dropout=0.0)
    selection = drawn(plain)
    changes: dict[str, Any] = {"steps": 1, "training": {"max_grad_norm": 0}}
    full = makers.train_job(tmp_path, plain, makers.text_documents(20), **changes)
    makers.carry_out(tmp_path / "full", full)
    _, after, _ = ran(tmp_path, plain, selection, **changes)
    whole = stored(tmp_path / "full" / "out" / "model")
    for name, parts in selection.slices.items():
        assert torch.allclose(split(after[name], parts)[1], split(whole[name], parts)[1], atol=1e-6)


@pytest.mark.parametrize("name", ["gpt2", "phi3", "bert"])
def test_the_saved_model_has_plain_names_and_the_trained_numbers(
    tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    _, after, facts = ran(tmp_path, folder, drawn(folder), state=["state/optimizer"])
    kind = transformers.AutoModelForSequenceClassification if name == "bert" else transformers.AutoModelForCausalLM
    again = kind.from_pretrained(tmp_path / "job" / "out" / "model")
    assert facts["parameters"] == again.num_parameters()
    named = dict(again.named_parameters())
    assert all(torch.equal(named[key], tensor) for key, tensor in after.items() if key in named)
    moments = load_file(tmp_path / "job" / "out" / "optimizer" / "optimizer.safetensors")
    assert sum(t.numel() for key, t in moments.items() if key.endswith(".exp_avg")) == facts["trainable"]


def test_the_facts_agree_with_the_share_that_was_planned(tmp_path: Path, llama: Path) -> None:
    selection = drawn(llama)
    _, _, facts = ran(tmp_path, llama, selection)
    table = parameter_table(load(ModelFiles(path=str(llama)), "causal-lm", device=CPU).model)
    outside = sum(parameter.numel for parameter in table if ".layers." not in parameter.name)
    inside = facts["parameters"] - outside
    assert facts["trainable"] - outside == realised(table, selection) * inside == inside / 2


@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_a_stage_that_was_stopped_goes_on_with_the_stored_half(
    tmp_path: Path, name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = request.getfixturevalue(name)
    job = half_job(tmp_path, folder, drawn(folder))
    # Whatever draws anew fails.
    monkeypatch.delattr("strategies.selection.half._category")
    whole = makers.loop(tmp_path / "whole", job)
    whole.train()
    for step in (1, 4):
        with pytest.raises(Stopped):
            makers.loop(tmp_path / f"at-{step}", job, stop_at=step).train()
        resumed = makers.loop(tmp_path / f"at-{step}", job)
        resumed.train()
        assert resumed.progress.resumed_from == [step]
        makers.assert_equal(makers.weights(resumed), makers.weights(whole))


def test_the_checkpoint_of_another_half_is_not_used(tmp_path: Path, llama: Path) -> None:
    with pytest.raises(Stopped):
        makers.loop(tmp_path / "job", half_job(tmp_path, llama, drawn(llama)), stop_at=2).train()
    other = makers.loop(tmp_path / "job", half_job(tmp_path, llama, drawn(llama, stage=2)))
    assert not other.resume()


def test_over_the_stages_another_half_stays(tmp_path: Path, llama: Path) -> None:
    makers.carry_out(tmp_path / "first", half_job(tmp_path, llama, drawn(llama)))
    folder = tmp_path / "first" / "out" / "model"
    second = drawn(folder, stage=2)
    before, after, _ = ran(tmp_path, folder, second)
    assert_half_moved(second, before, after)
    assert set(second.frozen) != set(drawn(llama).frozen)


# --- the bottom variant -------------------------------------------------------------------------------------------


def watch(output: Any, then: Any) -> None:
    """Call ``then`` when the backward pass reaches a block's output."""
    tensor = output if isinstance(output, torch.Tensor) else output[0]
    if tensor.requires_grad:
        tensor.register_hook(then)


def backward(loop: Loop) -> list[int]:
    """The blocks that a backward pass goes through."""
    seen: list[int] = []
    model = loop.run.model
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    stack = next(m for name, m in base.named_modules() if name.rpartition(".")[2] in {"layers", "h", "layer"})
    for index, block in enumerate(stack):
        block.register_forward_hook(lambda *passed, index=index: watch(passed[-1], lambda _: seen.append(index)))
    draw = loop.mixing.draw(1)
    loop.run.model.train()
    loop.objective.gradients(loop.run, loop.collate(draw))
    return sorted(set(seen))


def deep(tmp_path: Path, name: str) -> Path:
    return models.small(tmp_path / f"{name}-deep", name, layers=4)


@pytest.mark.parametrize("again", [False, True], ids=["stored", "recomputed"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("name", ["llama-gqa", "llama-tied", "gpt2", "bert"])
def test_bottom_ends_the_backward_pass_at_the_lowest_block_that_moves(
    tmp_path: Path, name: str, lora: LoraSettings | None, again: bool
) -> None:
    folder = deep(tmp_path, name)
    settings = {"gradient_checkpointing": again}
    loop = makers.loop(
        tmp_path / "job", half_job(tmp_path, folder, drawn(folder, level="bottom", lora=lora), training=settings)
    )
    assert backward(loop) == [2, 3]
    assert all(parameter.grad is not None for parameter in loop.run.parameters.values())


def test_the_other_levels_need_the_whole_backward_pass(tmp_path: Path) -> None:
    folder = deep(tmp_path, "llama-tied")
    assert backward(makers.loop(tmp_path / "job", half_job(tmp_path, folder, drawn(folder)))) == [0, 1, 2, 3]


@pytest.mark.parametrize("again", [False, True], ids=["stored", "recomputed"])
def test_a_tied_matrix_gets_the_heads_gradient_alone(tmp_path: Path, again: bool) -> None:
    folder = deep(tmp_path, "llama-tied")
    job = half_job(tmp_path, folder, drawn(folder, level="bottom"), training={"gradient_checkpointing": again})
    loop = makers.loop(tmp_path / "job", job)
    (batch,) = loop.collate(loop.mixing.draw(1))
    loop.objective.gradients(loop.run, [batch])
    model = load(ModelFiles(path=str(folder)), "causal-lm", device=CPU).model
    features = model.model(**batch.inputs).last_hidden_state.detach()
    head = model.lm_head.weight.detach().clone().requires_grad_(True)
    flat = (features @ head.T).flatten(0, 1)
    torch.autograd.backward(torch.nn.functional.cross_entropy(flat, batch.targets.flatten()))
    assert torch.allclose(loop.run.model.lm_head.weight.grad, head.grad, atol=1e-6)
    assert loop.run.model.lm_head.weight is loop.run.model.model.embed_tokens.weight


# --- adapters -----------------------------------------------------------------------------------------------------


def adapter_of(folder: Path) -> Weights:
    return dict(load_file(folder / "adapter_model.safetensors"))


def stays(name: str, selection: HalfSelection) -> bool:
    module = name.removeprefix("base_model.model.").partition(".lora_")[0]
    return f"{module}.weight" in selection.frozen


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_half_of_the_parents_adapters_go_on_and_half_stay(
    tmp_path: Path, name: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    first, second = drawn(folder, lora=LORA), drawn(folder, lora=LORA, stage=2)
    makers.carry_out(tmp_path / "first", half_job(tmp_path, folder, first))
    parent = tmp_path / "first" / "out" / "adapter"
    job = half_job(tmp_path, folder, second)
    job["model"]["adapter"] = str(parent)
    result = makers.carry_out(tmp_path / "second", job)
    before, after = adapter_of(parent), adapter_of(tmp_path / "second" / "out" / "adapter")
    assert before.keys() == after.keys()
    assert set(result.artifacts) == {"answer/adapter"}
    lora = [key for key in before if ".lora_" in key]
    assert {key for key in lora if torch.equal(before[key], after[key])} == {key for key in lora if stays(key, second)}
    # In the first stage a frozen adapter stays the zero update that it began as.
    zero = {key for key in lora if ".lora_B" in key and not before[key].any()}
    assert zero == {key for key in lora if ".lora_B" in key and stays(key, first)}


def test_a_classifiers_head_moves_with_either_half(tmp_path: Path, bert: Path) -> None:
    for lora in (None, LORA):
        selection = drawn(bert, lora=lora)
        loop = makers.loop(tmp_path / f"{lora is None}", half_job(tmp_path, bert, selection, steps=2))
        before = makers.weights(loop)
        loop.train()
        after = makers.weights(loop)
        head = [name for name in before if "classifier" in name and not torch.equal(before[name], after[name])]
        assert len(head) == 2


def test_a_choice_that_has_no_adapter_is_refused(tmp_path: Path, llama: Path) -> None:
    some = LORA.model_copy(update={"target_modules": ("q_proj", "k_proj")})
    selection = drawn(llama, lora=LORA).model_copy(update={"lora": some})
    with pytest.raises(Refused, match=r"has no adapter; keep lora\.target_modules"):
        makers.loop(tmp_path / "job", half_job(tmp_path, llama, selection))


def test_half_in_full_merges_the_parents_adapter_first(tmp_path: Path, llama: Path) -> None:
    makers.carry_out(tmp_path / "first", half_job(tmp_path, llama, drawn(llama, lora=LORA)))
    job = half_job(tmp_path, llama, drawn(llama))
    job["model"]["adapter"] = str(tmp_path / "first" / "out" / "adapter")
    loop = makers.loop(tmp_path / "second", job)
    assert not any("lora" in name for name in loop.run.parameters)
    frozen = {name for name, parameter in loop.run.model.named_parameters() if not parameter.requires_grad}
    assert frozen == set(drawn(llama).frozen)


@pytest.mark.parametrize("where", ["frozen", "slices"])
def test_names_that_the_model_does_not_have_are_refused(tmp_path: Path, gpt2: Path, where: str) -> None:
    selection = drawn(gpt2)
    part = next(iter(selection.slices.values()))
    wrong = {"frozen": ("elsewhere.weight",)} if where == "frozen" else {"slices": {"transformer.h.9.weight": part}}
    with pytest.raises(Refused, match=r"names \S+, which the model does not have"):
        makers.loop(tmp_path / "job", half_job(tmp_path, gpt2, selection.model_copy(update=wrong)))


@pytest.mark.parametrize(
    "parts",
    [[(0, 64, 100)], [(0, 0, 96)], [(0, 0, 40), (0, 30, 60)], [(1, 0, 32)]],
    ids=["too long", "all of it", "overlapping", "other dimension"],
)
def test_slices_that_do_not_fit_the_tensor_are_refused(
    tmp_path: Path, gpt2: Path, parts: list[tuple[int, int, int]]
) -> None:
    name = "transformer.h.0.attn.c_attn.bias"
    slices = [{"dim": dim, "start": start, "stop": stop} for dim, start, stop in parts]
    wrong = HalfSelection.model_validate({"level": "category", "frozen": (), "slices": {name: slices}})
    with pytest.raises(Refused, match=r"do not fit a tensor of shape \(96,\)"):
        makers.loop(tmp_path / "job", half_job(tmp_path, gpt2, wrong))


# --- the parameter table ------------------------------------------------------------------------------------------


def measured(tmp_path: Path, folder: Path, documents: Any, **changes: Any) -> JobResult:
    task = changes.pop("task", task_of(folder))
    files = changes.pop("model", {})
    source = makers.source(tmp_path / "measured.parquet", documents)
    work = {"kind": "measure", "sources": [makers.as_json(source)], "training": makers.training(), **changes}
    return makers.carry_out(tmp_path / "measure", makers.spec(work, folder, task=task, model=files))


def test_an_architectures_own_linear_layer_is_a_linear_layer() -> None:
    config = transformers.FalconConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    table = parameter_table(transformers.FalconForCausalLM(config))
    kinds = {one.module for one in table if one.name.endswith("dense_h_to_4h.weight")}
    assert kinds == {"Linear"}
    with_adapters = HalfSettings(level="layer")
    assert choose(table, settings=with_adapters, seed=3, stage=1, lora=LoraSettings()).frozen


def test_the_measure_job_writes_the_plain_models_table(tmp_path: Path, llama: Path) -> None:
    result = measured(tmp_path, llama, makers.text_documents(4))
    table = {parameter.name: parameter for parameter in result.parameters}
    assert table["model.embed_tokens.weight"].names == ("model.embed_tokens.weight", "lm_head.weight")
    assert table["model.layers.1.mlp.down_proj.weight"].shape == (32, 64)
    assert table["model.norm.weight"].module == "LlamaRMSNorm"
    assert set(table) == set(stored(llama))


def test_an_adapter_does_not_show_in_the_table(tmp_path: Path, bert: Path) -> None:
    makers.carry_out(tmp_path / "first", half_job(tmp_path, bert, drawn(bert, lora=LORA)))
    adapter = {"adapter": str(tmp_path / "first" / "out" / "adapter"), "labels": LABELS}
    documents = makers.labelled(6, LABELS)
    wrapped = measured(tmp_path, bert, documents, model=adapter)
    plain = load(ModelFiles(path=str(bert), labels=tuple(LABELS)), "classification", device=CPU).model
    assert wrapped.parameters == parameter_table(plain)


def test_table_names_are_those_of_the_model_in_its_order() -> None:
    for name in ("gpt2", "opt"):
        model = tables.model(name)
        assert [parameter.name for parameter in parameter_table(model)] == [n for n, _ in model.named_parameters()]


@pytest.mark.parametrize("task", ["causal-lm", "classification"])
def test_measuring_ends_with_the_document_that_fills_the_tokens(
    tmp_path: Path, task: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = request.getfixturevalue("bert" if task == "classification" else "llama")
    documents = makers.labelled(20, LABELS) if task == "classification" else makers.text_documents(20)
    lengths: list[int] = []
    each = Scorer._each

    def counting(self: Scorer, places: list[int], *rest: Any) -> None:
        lengths.extend(places)
        each(self, places, *rest)

    monkeypatch.setattr(Scorer, "_each", counting)
    found = measured(tmp_path, folder, documents, tokens=100, window=32, task=task, model={"labels": LABELS})
    assert found.measured[0].documents == 20
    assert found.measured[0].loss is not None
    assert sum(lengths[:-1]) < 100 <= sum(lengths)
