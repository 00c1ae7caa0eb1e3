"""The merge job on real folders: what it writes is an ordinary model, and what does not fit is refused by name."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from strategies.contract import JobResult
from strategies.errors import BadPlan, Refused
from strategies.merging.fisher import save_importance
from tests import models
from tests.training import makers
from tests.training.merges import adapter, changed, changes, folded, merge, on, sets, shifted, ties, weights

LABELS = ("calm", "angry")
Weights = dict[str, torch.Tensor]


@pytest.fixture
def pair(tmp_path: Path, llama: Path) -> dict[str, Path]:
    return {name: shifted(llama, tmp_path / name, seed=seed) for name, seed in (("one", 1), ("two", 2))}


# --- full models -------------------------------------------------------------------------------------------------


def test_a_soup_of_two_is_an_ordinary_folder_of_their_mean(tmp_path: Path, llama: Path, pair: dict[str, Path]) -> None:
    result = merge(tmp_path, llama, pair, {"kind": "soup"})
    out = tmp_path / "job" / result.artifacts["answer/model"]
    one, two, found = weights(pair["one"]), weights(pair["two"]), weights(out)
    assert found.keys() == one.keys()
    assert all(torch.allclose(found[name], (one[name] + two[name]) / 2, atol=1e-7) for name in one)
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    assert (out / "tokenizer.json").read_bytes() == (llama / "tokenizer.json").read_bytes()
    assert result.facts["inputs"].keys() == {"base", "one", "two"}


METHODS = (
    {"kind": "task-arithmetic"},
    {"kind": "ties"},
    {"kind": "dare", "then": "ties"},
    {"kind": "lines", "after": {"kind": "ties"}, "beta": 0.5},
    {"kind": "soup"},
)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method["kind"])
def test_merging_models_that_did_not_change_changes_no_bit(tmp_path: Path, llama: Path, method: dict[str, Any]) -> None:
    merge(tmp_path, llama, {"one": llama, "two": llama}, method)
    makers.assert_equal(weights(tmp_path / "job/out/model"), weights(llama))


def test_the_same_job_gives_the_same_bytes(tmp_path: Path, llama: Path, pair: dict[str, Path]) -> None:
    method = {"kind": "dare", "drop": 0.5, "then": "ties", "density": 0.4}
    found = [merge(tmp_path / name, llama, pair, method).facts for name in ("a", "b")]
    files = [tmp_path / name / "job/out/model/model.safetensors" for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert found[0]["sha256"] == found[1]["sha256"]
    assert len(found[0]["warnings"]) == 2


def test_ties_trims_the_whole_model_at_once(tmp_path: Path, llama: Path, pair: dict[str, Path]) -> None:
    merge(tmp_path, llama, {"one": pair["one"]}, {"kind": "ties", "density": 0.25})
    base, found = weights(llama), weights(tmp_path / "job/out/model")
    moved = sum(int((found[name] != base[name]).sum()) for name in base)
    assert moved == sum(one.numel() for one in base.values()) // 4


def test_a_bf16_base_gives_a_bf16_model_merged_in_float32(tmp_path: Path, llama: Path) -> None:
    base = tmp_path / "base"
    transformers.AutoModelForCausalLM.from_pretrained(llama, dtype=torch.bfloat16).save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(llama / name, base / name)
    parents = {str(n): shifted(base, tmp_path / str(n), seed=n, dtype=torch.bfloat16) for n in (1, 2, 3)}
    merge(tmp_path, base, parents, {"kind": "soup"})
    found, read = weights(tmp_path / "job/out/model"), [weights(one) for one in parents.values()]
    for name, tensor in found.items():
        mean = torch.stack([one[name].float() for one in read]).mean(0)
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, mean.to(torch.bfloat16)) or torch.allclose(tensor.float(), mean, rtol=2**-8)
    assert json.loads((tmp_path / "job/out/model/config.json").read_bytes())["dtype"] == "bfloat16"


def test_shards_and_the_missing_prefix_of_a_hub_model_are_read(tmp_path: Path, gpt2: Path) -> None:
    """GPT-2 as published has no ``transformer.`` before its names; one trained by us has."""
    base, tensors = tmp_path / "base", weights(gpt2)
    shutil.copytree(gpt2, base)
    (base / "model.safetensors").unlink()
    bare = {name.removeprefix("transformer."): one for name, one in tensors.items()}
    parts = {f"model-{n}-of-2.safetensors": dict(list(bare.items())[n - 1 :: 2]) for n in (1, 2)}
    for file, part in parts.items():
        save_file({**part}, base / file, {"format": "pt"})
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    candidate = shifted(gpt2, tmp_path / "candidate", seed=1)
    merge(tmp_path, base, {"candidate": candidate}, {"kind": "interpolate", "share": 1.0})
    makers.assert_equal(weights(tmp_path / "job/out/model"), tensors)


def test_numbers_that_are_no_floats_come_from_the_base(tmp_path: Path, llama: Path, pair: dict[str, Path]) -> None:
    base = tmp_path / "base"
    shutil.copytree(llama, base)
    for number, folder in enumerate([base, *pair.values()]):
        tensors = weights(folder) | {"model.steps": torch.tensor([number, 7])}
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    merge(tmp_path, base, pair, {"kind": "ties"})
    assert weights(tmp_path / "job/out/model")["model.steps"].tolist() == [0, 7]


def test_fisher_weighs_each_number_and_names_its_estimators(tmp_path: Path, llama: Path, pair: dict[str, Path]) -> None:
    parents = {}
    for number, (role, path) in enumerate(pair.items()):
        tensors = {name: torch.full_like(one, float(number)) for name, one in weights(path).items()}
        save_importance(tmp_path / f"f-{role}", tensors, estimator="empirical", examples=3)
        parents[role] = {"model": {"path": str(path)}, "fisher": str(tmp_path / f"f-{role}")}
    result = merge(tmp_path, llama, parents, {"kind": "fisher", "floor": 1e-12})
    found, two = weights(tmp_path / "job/out/model"), weights(pair["two"])
    assert all(torch.allclose(found[name], two[name], atol=1e-5) for name in two)
    assert result.facts["estimators"] == {"one": "empirical", "two": "empirical"}


def test_fisher_information_is_estimated_from_rows_where_it_is_not_given(tmp_path: Path, bert: Path) -> None:
    first = models.bert(tmp_path / "first", labels=LABELS, seed=8)
    parents = {}
    for role, path in (("one", first), ("two", shifted(first, tmp_path / "two", seed=2))):
        rows = makers.source(tmp_path / f"{role}.parquet", makers.labelled(6))
        parents[role] = {"model": {"path": str(path)}, "rows": makers.as_json(rows)}
    result = merge(tmp_path, bert, parents, {"kind": "fisher", "documents": 4}, task="classification")
    found, one, two = (weights(path) for path in (tmp_path / "job/out/model", first, tmp_path / "two"))
    assert result.facts["estimators"] == {"one": "exact", "two": "exact"}
    assert result.facts["examples"] == {"one": 4, "two": 4}
    assert not (tmp_path / "job/scratch").exists()
    for name in found:
        low, high = torch.minimum(one[name], two[name]), torch.maximum(one[name], two[name])
        assert ((found[name] >= low - 1e-6) & (found[name] <= high + 1e-6)).all()
    assert not torch.allclose(found["classifier.weight"], (one["classifier.weight"] + two["classifier.weight"]) / 2)


# --- classifiers -------------------------------------------------------------------------------------------------


def test_classifiers_of_the_same_classes_are_merged(tmp_path: Path, bert: Path) -> None:
    """The base's head was never trained, so the parents' heads are averaged and not counted from it."""
    first = models.bert(tmp_path / "first", labels=LABELS, seed=8)
    parents = {"one": first, "two": shifted(first, tmp_path / "two", seed=2)}
    result = merge(tmp_path, bert, parents, {"kind": "task-arithmetic", "lam": 0.3}, task="classification")
    out, two = weights(tmp_path / "job/out/model"), weights(parents["two"])
    expected = (weights(first)["classifier.weight"] + two["classifier.weight"]) / 2
    assert torch.allclose(out["classifier.weight"], expected)
    assert result.labels == LABELS
    assert result.facts["averaged"] == ["classifier.bias", "classifier.weight"]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "job/out/model")
    assert model.config.id2label == {0: "calm", 1: "angry"}


def test_classifiers_of_other_classes_are_refused(tmp_path: Path, bert: Path) -> None:
    parents = {
        role: models.bert(tmp_path / role, labels=labels) for role, labels in (("one", LABELS), ("two", LABELS[::-1]))
    }
    with pytest.raises(Refused, match="calm, angry do not begin with angry, calm"):
        merge(tmp_path, bert, parents, {"kind": "soup"}, task="classification")


# --- refusals ----------------------------------------------------------------------------------------------------


def test_models_of_another_shape_are_refused_by_tensor(tmp_path: Path, llama: Path) -> None:
    wide = models.llama(tmp_path / "wide", hidden=64)
    with pytest.raises(Refused, match=r"lm_head|tensor model\.embed_tokens\.weight is \[512, 64\] in two"):
        merge(tmp_path, llama, {"one": llama, "two": wide}, {"kind": "soup"})


def test_models_of_another_depth_are_refused_by_tensor(tmp_path: Path, llama: Path) -> None:
    deep = models.llama(tmp_path / "deep", layers=3)
    with pytest.raises(Refused, match=r"one has no tensor model\.layers\.2\."):
        merge(tmp_path, llama, {"one": llama, "two": deep}, {"kind": "soup"})


def test_models_of_another_kind_are_refused(tmp_path: Path, llama: Path, gpt2: Path) -> None:
    with pytest.raises(Refused, match="two is a gpt2 model and its base a llama one"):
        merge(tmp_path, llama, {"one": llama, "two": gpt2}, {"kind": "soup"})


def test_another_tokenizer_is_refused_by_token(tmp_path: Path, llama: Path, pair: dict[str, Path]) -> None:
    path = pair["two"] / "tokenizer.json"
    parts = json.loads(path.read_bytes())
    vocabulary = parts["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(parts))
    with pytest.raises(Refused, match=r"tokenizer of two differs from the base's \(token 'a'\)"):
        merge(tmp_path, llama, pair, {"kind": "soup"})


def test_a_merge_that_is_not_finite_is_not_published(tmp_path: Path, llama: Path, pair: dict[str, Path]) -> None:
    tensors = weights(pair["one"])
    tensors["model.norm.weight"][3] = float("inf")
    save_file(tensors, pair["one"] / "model.safetensors", {"format": "pt"})
    with pytest.raises(Exception, match=r"model\.norm\.weight is not finite"):
        merge(tmp_path, llama, pair, {"kind": "soup"})


def test_two_parents_of_one_name_are_refused(tmp_path: Path, llama: Path) -> None:
    listed = [{"role": "one", "model": {"path": str(llama)}}] * 2
    work = {"kind": "merge", "method": {"kind": "soup"}, "parents": listed}
    with pytest.raises(BadPlan, match="two parents are called one"):
        makers.carry_out(tmp_path / "job", makers.spec(work, llama))


# --- adapters ----------------------------------------------------------------------------------------------------


@pytest.fixture
def adapters(tmp_path: Path, llama: Path) -> dict[str, Path]:
    return {name: adapter(llama, tmp_path / name, seed=seed) for name, seed in (("one", 1), ("two", 2))}


def test_adapters_folded_into_a_model_are_averaged_as_products(
    tmp_path: Path, llama: Path, adapters: dict[str, Path]
) -> None:
    merge(tmp_path, llama, {role: on(llama, path) for role, path in adapters.items()}, {"kind": "soup"})
    one, two = (folded(llama, path) for path in adapters.values())
    for name, found in weights(tmp_path / "job/out/model").items():
        assert torch.allclose(found, (one[name] + two[name]) / 2, atol=1e-6)


def assert_nearest(found: Weights, base: Weights, wanted: Weights) -> float:
    """``found`` changes ``base`` by the nearest of rank 2; the share of the changes' norm that no such rank holds."""
    missed = whole = 0.0
    for name, tensor in base.items():
        change = wanted[name] - tensor
        if change.abs().max() > 1e-6:
            u, sizes, vh = torch.linalg.svd(change)
            assert torch.allclose(found[name] - tensor, (u[:, :2] * sizes[:2]) @ vh[:2], atol=1e-5)
            missed, whole = missed + float(sizes[2:].square().sum()), whole + float(sizes.square().sum())
    return math.sqrt(missed / whole)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_adapters_merge_into_the_nearest_adapter_of_their_rank(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    base = request.getfixturevalue(kind)
    extra: dict[str, Any] = {} if kind == "llama" else {"targets": ("c_attn",), "fan_in_fan_out": True}
    paths = {name: adapter(base, tmp_path / name, seed=seed, **extra) for name, seed in (("one", 1), ("two", 2))}
    result = merge(tmp_path, base, {r: on(base, p) for r, p in paths.items()}, {"kind": "soup"}, into="adapter")
    assert set(result.artifacts) == {"answer/adapter"}
    plain = transformers.AutoModelForCausalLM.from_pretrained(base).state_dict()
    one, two, found = (folded(base, path) for path in (*paths.values(), tmp_path / "job/out/adapter"))
    gap = assert_nearest(found, plain, {name: (one[name] + two[name]) / 2 for name in plain})
    assert result.facts["gaps"]["rank_gap"] == pytest.approx(gap, rel=1e-3)
    assert result.facts["gaps"]["factor_gap"] > 0.1


def test_ties_of_adapters_is_ties_of_their_products(tmp_path: Path, llama: Path) -> None:
    paths = {role: adapter(llama, tmp_path / role, seed=n, r=32) for n, role in enumerate(("one", "two"), 1)}
    for into in ("model", "adapter"):
        parents = {role: on(llama, path) for role, path in paths.items()}
        merge(tmp_path / into, llama, parents, {"kind": "ties", "density": 0.25}, into=into)
    vectors = changes(llama, paths.values())
    whole, cut = weights(tmp_path / "model/job/out/model"), folded(llama, tmp_path / "adapter/job/out/adapter")
    for name, tensor in changed(llama, ties(vectors, vectors.shape[1] // 4)).items():
        assert torch.allclose(whole[name], tensor, atol=1e-5)
        assert torch.allclose(cut[name], tensor, atol=1e-5)


def test_ties_of_adapters_counts_the_adapted_numbers_alone(tmp_path: Path, llama: Path) -> None:
    plain = weights(llama)
    found = on(llama, adapter(llama, tmp_path / "1", seed=1, targets=("q_proj",)))
    merge(tmp_path, llama, {"one": found, "two": found}, {"kind": "ties", "density": 0.01})
    changed = {name: int((found != plain[name]).sum()) for name, found in weights(tmp_path / "job/out/model").items()}
    adapted = sum(tensor.numel() for name, tensor in plain.items() if "q_proj" in name)
    assert sum(changed.values()) == int(0.01 * adapted) > 0


def test_the_mean_change_of_adapters_is_of_the_adapted_numbers(tmp_path: Path, llama: Path) -> None:
    path = adapter(llama, tmp_path / "one", seed=1, targets=("q_proj",))
    result = merge(tmp_path, llama, dict.fromkeys(("one", "two"), on(llama, path)), {"kind": "dare", "drop": 0.5})
    plain, whole = weights(llama), folded(llama, path)
    mean = torch.cat([(whole[name] - plain[name]).flatten() for name in plain if "q_proj" in name]).abs().mean()
    assert result.facts["mean_change"]["one"] == pytest.approx(float(mean), rel=1e-3)


def test_a_candidate_adapter_goes_back_towards_its_parents(
    tmp_path: Path, llama: Path, adapters: dict[str, Path]
) -> None:
    method = {"kind": "interpolate", "share": 0.25}
    parent, candidate = adapters.values()
    result = merge(tmp_path, llama, {"c": on(llama, candidate)}, method, into="adapter", model={"adapter": str(parent)})
    merge(tmp_path / "full", llama, {"c": on(llama, candidate)}, method, model={"adapter": str(parent)})
    old, new, full = folded(llama, parent), folded(llama, candidate), weights(tmp_path / "full/job/out/model")
    assert all(torch.allclose(full[name], 0.25 * old[name] + 0.75 * new[name], atol=1e-6) for name in full)
    gap = assert_nearest(folded(llama, tmp_path / "job/out/adapter"), weights(llama), full)
    assert result.facts["gaps"]["rank_gap"] == pytest.approx(gap, rel=1e-3)
    assert gap > 0.1


def test_an_adapters_trained_head_is_averaged(tmp_path: Path, bert: Path) -> None:
    extra: dict[str, Any] = {"targets": ("query",), "task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}
    paths = {name: adapter(bert, tmp_path / name, seed=seed, **extra) for name, seed in (("one", 1), ("two", 2))}
    key = "base_model.model.classifier.weight"
    read = []
    for number, path in enumerate(paths.values()):
        tensors = load_file(path / "adapter_model.safetensors")
        tensors[key] += number
        save_file(tensors, path / "adapter_model.safetensors", {"format": "pt"})
        (path / "labels.json").write_text(json.dumps({"format": 1, "labels": LABELS}))
        read.append(tensors[key])
    parents = {role: on(bert, path) for role, path in paths.items()}
    for into in ("adapter", "model"):
        result = merge(tmp_path / into, bert, parents, {"kind": "soup"}, task="classification", into=into)
        assert result.labels == LABELS
    found = load_file(tmp_path / "adapter/job/out/adapter/adapter_model.safetensors")[key]
    assert torch.allclose(found, sum(read) / 2)
    assert torch.equal(weights(tmp_path / "model/job/out/model")["classifier.weight"], found)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model/job/out/model")
    assert list(model.config.id2label.values()) == list(LABELS)


@pytest.mark.parametrize(("change", "message"), [({"use_dora": True}, "use_dora"), ({"peft_type": "IA3"}, "no LoRA")])
def test_other_adapters_are_refused(
    tmp_path: Path, llama: Path, adapters: dict[str, Path], change: dict[str, Any], message: str
) -> None:
    path = adapters["one"] / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **change}))
    with pytest.raises(Refused, match=message):
        merge(tmp_path, llama, {role: on(llama, one) for role, one in adapters.items()}, {"kind": "soup"})


def test_adapters_of_different_modules_merge_into_a_model_only(
    tmp_path: Path, llama: Path, adapters: dict[str, Path]
) -> None:
    other = adapter(llama, tmp_path / "other", seed=3, targets=("q_proj",))
    parents = {"one": on(llama, adapters["one"]), "other": on(llama, other)}
    with pytest.raises(Refused, match="v_proj is adapted by some of the models only"):
        merge(tmp_path, llama, parents, {"kind": "soup"}, into="adapter")
    merge(tmp_path, llama, parents, {"kind": "soup"})


# --- choosing by eval sets ---------------------------------------------------------------------------------------


FAST: dict[str, Any] = {
    "schedule": {"kind": "cosine", "steps": 30, "warmup": 2, "lr": 1e-2, "min_lr": 1e-3},
    "steps": 30,
}


def trained(folder: Path, model: Path, documents: Sequence[dict[str, Any]], **changes: Any) -> Path:
    """A model after a short training."""
    makers.carry_out(folder, makers.train_job(folder, model, documents, **changes))
    return folder / "out/model"


@pytest.fixture(scope="module")
def forgetful(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> dict[str, Any]:
    """A parent that knows ``old``, a candidate that learnt ``new`` and forgot."""
    tmp_path = tmp_path_factory.mktemp("forgetful")
    old, new = [{"text": "alpha beta gamma delta " * 8}] * 12, [{"text": "one two three four five " * 8}] * 12
    for rows in (old, new):
        rows[:] = [{"text": f"{n} {row['text']}"} for n, row in enumerate(rows)]
    for name in ("old", "new"):
        (tmp_path / f"train-{name}").mkdir()
    parent = trained(tmp_path / "train-old", llama, old, **FAST)
    return {"parent": parent, "candidate": trained(tmp_path / "train-new", parent, new, **FAST), "old": old, "new": new}


def repaired(tmp_path: Path, given: dict[str, Any], *, tolerance: float) -> JobResult:
    roles: dict[str, Any] = {"new": {"role": "new"}, "old": {"role": "old", "tolerance": tolerance}}
    listed = sets(tmp_path, {"new": given["new"], "old": given["old"]}, **roles)
    return merge(tmp_path, given["parent"], {"candidate": given["candidate"]}, {"kind": "repair"}, sets=listed)


def test_a_repair_keeps_most_of_the_gain_within_the_tolerance(tmp_path: Path, forgetful: dict[str, Any]) -> None:
    free = repaired(tmp_path, forgetful, tolerance=1e9)
    assert free.facts["trials"].keys() == {
        "interpolate-0.25", "interpolate-0.5", "interpolate-0.75", "lines-0.5", "half-reset-1"
    }  # fmt: skip
    rises = {
        name: one["scores"]["old"] / free.facts["scores"]["parent"]["old"] - 1
        for name, one in free.facts["trials"].items()
    }
    border = sorted(rises.values())[2]
    (tmp_path / "second").mkdir()
    result = repaired(tmp_path / "second", forgetful, tolerance=border)
    allowed = {name: one["gain"] for name, one in free.facts["trials"].items() if rises[name] <= border}
    assert result.facts["chosen"] == max(allowed, key=lambda name: allowed[name])
    assert free.facts["candidate_gain"] > max(allowed.values()) > 0
    assert sorted(path.name for path in (tmp_path / "second/job/out").iterdir()) == ["model"]


def test_a_repair_writes_the_trial_that_it_scored(tmp_path: Path, forgetful: dict[str, Any]) -> None:
    result = repaired(tmp_path, forgetful, tolerance=1e9)
    share = result.facts["trials"][result.facts["chosen"]]["method"]["share"]
    assert result.facts["chosen"] == f"interpolate-{share:g}"
    old, new, found = (
        weights(path) for path in (forgetful["parent"], forgetful["candidate"], tmp_path / "job/out/model")
    )
    assert all(torch.allclose(found[name], share * old[name] + (1 - share) * new[name], atol=1e-6) for name in found)


def test_where_nothing_helps_nothing_is_written(tmp_path: Path, forgetful: dict[str, Any]) -> None:
    result = repaired(tmp_path, forgetful, tolerance=0.0)
    assert result.facts["chosen"] is None
    assert result.artifacts == {}
    assert list((tmp_path / "job/out").iterdir()) == []


def test_a_repair_of_a_grown_classifier_keeps_the_new_classes(tmp_path: Path) -> None:
    parent = models.bert(tmp_path / "parent", labels=LABELS)
    grown = models.bert(tmp_path / "grown", labels=(*LABELS, "sad"), seed=9)
    method = {"kind": "interpolate", "share": 0.5}
    result = merge(tmp_path, parent, {"candidate": grown}, method, task="classification")
    old, new, found = (weights(path)["classifier.weight"] for path in (parent, grown, tmp_path / "job/out/model"))
    assert torch.allclose(found[:2], (old + new[:2]) / 2)
    assert torch.equal(found[2], new[2])
    assert result.labels == (*LABELS, "sad")


def test_an_adapter_is_repaired_as_an_adapter(tmp_path: Path, llama: Path, adapters: dict[str, Path]) -> None:
    documents = makers.text_documents(12)
    lora = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]}
    makers.carry_out(
        tmp_path / "t", makers.train_job(tmp_path, llama, documents, selection={"kind": "lora", "lora": lora}, **FAST)
    )
    parent, candidate = adapters["one"], tmp_path / "t/out/adapter"
    result = merge(
        tmp_path,
        llama,
        {"c": on(llama, candidate)},
        {"kind": "repair", "shares": [0.75], "alphas": [], "half_resets": 1},
        into="adapter",
        sets=sets(tmp_path, {"new": documents}),
        model={"adapter": str(parent)},
    )
    trials = result.facts["trials"]
    names = trials["half-reset-1"]["method"]["names"]
    assert len(names) == 2
    assert all("q_proj" in name or "v_proj" in name for name in names)
    assert result.facts["chosen"] == "half-reset-1"
    assert trials["half-reset-1"]["gain"] > trials["interpolate-0.75"]["gain"] > 0
    assert result.artifacts == {"answer/adapter": "out/adapter"}
    old, new, found = (folded(llama, path) for path in (parent, candidate, tmp_path / "job/out/adapter"))
    for name, tensor in found.items():
        assert torch.allclose(tensor, (old if name in names else new)[name], atol=1e-6)


def test_a_greedy_soup_leaves_out_what_harms(tmp_path: Path, llama: Path, forgetful: dict[str, Any]) -> None:
    """Two that went astray in opposite directions meet where the trained model is."""
    left, right = (shifted(forgetful["candidate"], tmp_path / str(size), seed=6, size=size) for size in (-0.1, 0.1))
    parents = {"broken": shifted(llama, tmp_path / "broken", seed=5, size=1.0), "left": left, "right": right}
    listed = sets(tmp_path, {"new": forgetful["new"]})
    result = merge(tmp_path, llama, parents, {"kind": "greedy-soup"}, sets=listed)
    assert sorted(result.facts["kept"]) == ["left", "right"]
    trained = weights(forgetful["candidate"])
    for name, found in weights(tmp_path / "job/out/model").items():
        assert torch.allclose(found, trained[name], atol=1e-6)
    assert not (tmp_path / "job/scratch").exists()


def test_only_select_rows_are_read(tmp_path: Path, llama: Path, pair: dict[str, Path]) -> None:
    """Every second row is for judging: with one row alone there is nothing to choose by."""
    with pytest.raises(Refused, match="no eval set has a row of half select"):
        merge(tmp_path, llama, pair, {"kind": "greedy-soup"}, sets=sets(tmp_path, {"new": makers.text_documents(1)}))


@pytest.mark.parametrize("kind", ["greedy-soup", "repair"])
def test_choosing_needs_eval_sets(tmp_path: Path, llama: Path, kind: str) -> None:
    with pytest.raises(BadPlan, match="name"):
        merge(tmp_path, llama, {"one": llama}, {"kind": kind})
