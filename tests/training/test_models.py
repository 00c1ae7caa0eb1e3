"""Loading, adapters, growing heads, export; and model folders that mean harm."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from strategies.contract import ModelFiles
from strategies.errors import BadState, Refused
from strategies.inference.export import export_merged
from strategies.inference.load import adapter_labels, grow_head, head_of, load
from tests import models
from tests.training import banks, makers

CPU = torch.device("cpu")
LORA = {"kind": "lora", "lora": {"r": 2, "lora_alpha": 4}}


def logits(model: Any, **inputs: Any) -> torch.Tensor:
    ids = torch.arange(4, 20)[None]
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, **inputs).logits
    return found


def trained_adapter(tmp_path: Path, base: Path, **options: Any) -> Path:
    job = makers.train_job(tmp_path, base, makers.text_documents(12), selection=LORA, **options)
    makers.carry_out(tmp_path / "job", job)
    return tmp_path / "job" / "out" / "adapter"


def test_an_adapter_round_trips_through_peft_and_export(tmp_path: Path, llama: Path) -> None:
    adapter = trained_adapter(tmp_path, llama)
    files = ModelFiles(path=str(llama), adapter=str(adapter))
    ours = logits(load(files, "causal-lm", device=CPU).model)
    plain = transformers.AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    assert not torch.equal(ours, logits(plain))
    assert torch.equal(ours, logits(peft.PeftModel.from_pretrained(plain, adapter).eval()))
    export_merged(files, "causal-lm", tmp_path / "merged")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", use_safetensors=True)
    assert torch.allclose(ours, logits(merged), atol=1e-6)
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] is None
    assert (tmp_path / "merged" / "tokenizer.json").read_bytes() == (llama / "tokenizer.json").read_bytes()


def test_the_next_stage_continues_the_parents_adapter(tmp_path: Path, llama: Path) -> None:
    adapter = trained_adapter(tmp_path, llama)
    job = makers.train_job(tmp_path, llama, makers.text_documents(12), selection=LORA)
    job["model"]["adapter"] = str(adapter)
    loop = makers.loop(tmp_path / "next", job)
    stored = load_file(adapter / "adapter_model.safetensors")
    ours = {name.replace(".default", ""): tensor for name, tensor in makers.weights(loop).items()}
    makers.assert_equal(ours, stored)


def rewritten(base: Path, change: Callable[[str, torch.Tensor], tuple[str, torch.Tensor]]) -> Path:
    """The folder with other names or types in its weights; its configuration stays."""
    path = base / "model.safetensors"
    save_file(dict(change(*item) for item in load_file(path).items()), path, metadata={"format": "pt"})
    return base


def test_tensors_are_called_as_the_parents_are(tmp_path: Path) -> None:
    """GPT-2 as published has no ``transformer.`` before its names, and buffers that the model makes by itself."""
    base = rewritten(models.gpt2(tmp_path / "base"), lambda name, one: (name.removeprefix("transformer."), one))
    known = load_file(base / "model.safetensors")
    save_file({**known, "h.0.attn.bias": torch.ones(4)}, base / "model.safetensors", metadata={"format": "pt"})
    makers.carry_out(tmp_path / "job", makers.train_job(tmp_path, base, makers.text_documents(12)))
    trained = tmp_path / "job" / "out" / "model"
    assert load_file(trained / "model.safetensors").keys() == known.keys()
    found = load(ModelFiles(path=str(trained)), "causal-lm", device=CPU).model
    assert torch.equal(found.transformer.wte.weight, load_file(trained / "model.safetensors")["wte.weight"])
    assert not torch.equal(found.transformer.wte.weight, known["wte.weight"])


def test_a_new_head_keeps_the_full_names(tmp_path: Path) -> None:
    base = rewritten(models.bert(tmp_path / "base"), lambda name, one: (name.removeprefix("bert."), one))
    body = {name: one for name, one in load_file(base / "model.safetensors").items() if "classifier" not in name}
    save_file(body, base / "model.safetensors", metadata={"format": "pt"})
    rows = [{"text": f"word {at}", "label": "ab"[at % 2]} for at in range(8)]
    job = makers.train_job(tmp_path, base, rows, task="classification", job={"model": {"labels": ["a", "b"]}})
    makers.carry_out(tmp_path / "job", job)
    names = load_file(tmp_path / "job" / "out" / "model" / "model.safetensors").keys()
    assert names == {"classifier.weight", "classifier.bias", *(f"bert.{name}" for name in body)}


def test_weights_keep_the_type_of_their_file_whatever_the_configuration_says(tmp_path: Path) -> None:
    base = rewritten(models.gpt2(tmp_path / "base"), lambda name, one: (name, one.to(torch.bfloat16)))
    assert json.loads((base / "config.json").read_bytes())["dtype"] == "float32"
    makers.carry_out(tmp_path / "job", makers.train_job(tmp_path, base, makers.text_documents(12)))
    trained = load_file(tmp_path / "job" / "out" / "model" / "model.safetensors")
    assert {one.dtype for one in trained.values()} == {torch.bfloat16}


def test_training_in_full_merges_the_parents_adapter(tmp_path: Path, llama: Path) -> None:
    adapter = trained_adapter(tmp_path, llama)
    job = makers.train_job(tmp_path, llama, makers.text_documents(12))
    job["model"]["adapter"] = str(adapter)
    loop = makers.loop(tmp_path / "next", job)
    files = ModelFiles(path=str(llama), adapter=str(adapter))
    assert torch.allclose(logits(loop.run.model.eval()), logits(load(files, "causal-lm", device=CPU).model), atol=1e-6)
    assert not any("lora" in name for name in loop.run.parameters)


def test_another_rank_than_the_parents_is_refused(tmp_path: Path, llama: Path) -> None:
    adapter = trained_adapter(tmp_path, llama)
    other = {"kind": "lora", "lora": {"r": 4, "lora_alpha": 4}}
    job = makers.train_job(tmp_path, llama, makers.text_documents(12), selection=other)
    job["model"]["adapter"] = str(adapter)
    with pytest.raises(Refused, match="r 2 but the settings say 4"):
        makers.loop(tmp_path / "next", job)


def test_frozen_weights_do_not_move(tmp_path: Path, llama: Path) -> None:
    loop = makers.loop(tmp_path / "job", makers.train_job(tmp_path, llama, makers.text_documents(12), selection=LORA))
    before = {n: p.detach().clone() for n, p in loop.run.model.named_parameters() if not p.requires_grad}
    loop.train()
    after = {n: p.detach() for n, p in loop.run.model.named_parameters() if not p.requires_grad}
    makers.assert_equal(before, after)


def test_a_head_grows_without_touching_the_rows_it_has(tmp_path: Path) -> None:
    folder = models.bert(tmp_path / "m", labels=("calm", "angry"))
    model = load(ModelFiles(path=str(folder)), "classification", device=CPU).model
    before = logits(model)
    grow_head(model, ["calm", "angry", "sad"], seed=3)
    after = logits(model)
    assert after.shape == (1, 3)
    assert torch.allclose(before, after[:, :2], atol=1e-7)
    assert torch.equal(head_of(model)[1].weight[:2], load_file(folder / "model.safetensors")["classifier.weight"])
    assert 0 < head_of(model)[1].weight[2].abs().max() < 0.2
    assert model.config.id2label == {0: "calm", 1: "angry", 2: "sad"}


def class_job(tmp_path: Path, base: Path, labels: list[str], **changes: Any) -> dict[str, Any]:
    documents = banks.told(labels, 24)
    job = makers.train_job(tmp_path, base, documents, task="classification", **changes)
    job["model"]["labels"] = labels
    return job


def head_rows(model: torch.nn.Module) -> torch.Tensor:
    """A classifier's head, also where peft keeps the one that it began with beside it."""
    named = {name: one.detach() for name, one in model.named_parameters() if "original_module" not in name}
    (head,) = (one for name, one in named.items() if "classifier" in name and one.ndim == 2)
    return head


@pytest.mark.parametrize("selection", [{"kind": "full"}, LORA])
def test_a_trained_classifier_learns_a_new_class_in_the_next_stage(
    tmp_path: Path, bert: Path, selection: dict[str, Any]
) -> None:
    labels = ["calm", "angry", "red"]
    first = makers.carry_out(tmp_path / "first", class_job(tmp_path, bert, labels[:2], selection=selection))
    assert first.labels == ("calm", "angry")
    lora = selection["kind"] == "lora"
    made = tmp_path / "first" / "out" / ("adapter" if lora else "model")
    job = class_job(tmp_path, bert if lora else made, labels, selection=selection, **banks.hurried(24, lr=4e-3))
    job["model"]["adapter"] = str(made) if lora else None
    before = head_rows(makers.loop(tmp_path / "start", job).run.model)
    second = makers.carry_out(tmp_path / "second", job)
    assert second.labels == tuple(labels)
    out = tmp_path / "second" / "out" / ("adapter" if lora else "model")
    files = ModelFiles(path=str(bert if lora else out), adapter=str(out) if lora else None)
    loaded = load(files, "classification", device=CPU)
    assert loaded.labels == tuple(labels)
    assert adapter_labels(out) == (loaded.labels if lora else ())
    assert not torch.equal(head_rows(loaded.model)[2], before[2])
    rows = banks.told(labels, 12, start=50)
    texts = [row["text"] for row in rows]
    asked = loaded.tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        found = loaded.model.eval()(asked.input_ids, attention_mask=asked.attention_mask).logits.argmax(1)
    right = [labels[at] == row["label"] for at, row in zip(found, rows, strict=True)]
    assert sum(right) > 8
    assert sum(right[2::3]) > 1


def test_a_grown_adapter_head_begins_with_the_parents_rows(tmp_path: Path, bert: Path) -> None:
    makers.carry_out(tmp_path / "first", class_job(tmp_path, bert, ["calm", "angry"], selection=LORA))
    adapter = tmp_path / "first" / "out" / "adapter"
    job = class_job(tmp_path, bert, ["calm", "angry", "red"], selection=LORA)
    job["model"]["adapter"] = str(adapter)
    loop = makers.loop(tmp_path / "second", job)
    stored = load_file(adapter / "adapter_model.safetensors")
    ours = {
        name.replace(".modules_to_save.default", "").replace(".default", ""): t
        for name, t in makers.weights(loop).items()
    }
    assert torch.equal(ours["base_model.model.classifier.weight"][:2], stored["base_model.model.classifier.weight"])
    assert all(torch.equal(ours[name], tensor) for name, tensor in stored.items() if "lora_" in name)


def test_labels_that_do_not_begin_with_the_models_own_are_refused(tmp_path: Path) -> None:
    base = models.bert(tmp_path / "m", labels=("calm", "angry"))
    with pytest.raises(Refused, match="must begin with"):
        makers.loop(tmp_path / "job", class_job(tmp_path, base, ["angry", "calm"]))


def test_moments_of_another_shape_are_refused(tmp_path: Path, llama: Path) -> None:
    makers.carry_out(
        tmp_path / "a", makers.train_job(tmp_path, llama, makers.text_documents(9), state=["state/optimizer"])
    )
    job = makers.train_job(tmp_path, llama, makers.text_documents(9), selection=LORA)
    job["work"]["optimizer"] = str(tmp_path / "a/out/optimizer")
    with pytest.raises(BadState, match="does not fit"):
        makers.loop(tmp_path / "b", job)


HARM = [
    {"auto_map": {"AutoConfig": "code.Config"}},
    {"_attn_implementation_internal": "somebody/kernels"},
    {"_experts_implementation_internal": "somebody/kernels"},
    {"text_config": {"auto_map": {"AutoModel": "code.Model"}}},
]


@pytest.mark.parametrize("harm", HARM)
def test_a_configuration_that_could_run_code_is_refused(tmp_path: Path, llama: Path, harm: dict[str, Any]) -> None:
    folder = tmp_path / "m"
    shutil.copytree(llama, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **harm}))
    with pytest.raises(Refused, match=r"auto_map|private key"):
        load(ModelFiles(path=str(folder)), "causal-lm", device=CPU)


def test_a_tokenizer_that_could_run_code_is_refused(tmp_path: Path, llama: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(llama, folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["code.T", None]}}))
    with pytest.raises(Refused, match="auto_map"):
        load(ModelFiles(path=str(folder)), "causal-lm", device=CPU)


def test_a_folder_of_pickles_is_refused(tmp_path: Path, llama: Path) -> None:
    folder = tmp_path / "m"
    shutil.copytree(llama, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(Refused, match="safetensors"):
        load(ModelFiles(path=str(folder)), "causal-lm", device=CPU)
