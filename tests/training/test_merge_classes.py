"""Merges of classifiers of one growing list of classes: what only some of them know is taken from those."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from strategies.errors import Refused
from tests import models
from tests.training import makers
from tests.training.merges import adapter, merge, on, weights

CLASSES = ("calm", "angry", "sad", "glad")
ROWS = ["classifier.weight", "classifier.bias"]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Versions of one stream after its first two, three and four classes."""
    folder = tmp_path_factory.mktemp("grown")
    return {str(count): models.bert(folder / str(count), labels=CLASSES[:count], seed=count) for count in (2, 3, 4)}


def heads(*folders: Path) -> list[torch.Tensor]:
    """Each head as (classes, width + 1)."""
    found = [weights(folder) for folder in folders]
    return [torch.cat([one["classifier.weight"], one["classifier.bias"][:, None]], 1) for one in found]


def rows_of(tmp_path: Path, role: str, labels: tuple[str, ...]) -> dict[str, Any]:
    return makers.as_json(makers.source(tmp_path / f"rows-{role}.parquet", makers.labelled(6, labels)))


@pytest.mark.parametrize(
    "method",
    [
        {"kind": "soup"},
        {"kind": "task-arithmetic", "lam": 0.3},
        {"kind": "ties"},
        {"kind": "dare"},
        {"kind": "pcb"},
        {"kind": "lines", "beta": 0.5, "after": {"kind": "soup"}},
    ],
    ids=lambda one: one["kind"],
)
@pytest.mark.parametrize("roles", [("2", "3"), ("3", "2")])
def test_rows_of_classes_that_one_model_has_alone_are_copied(
    tmp_path: Path, bert: Path, grown: dict[str, Path], method: dict[str, Any], roles: tuple[str, ...]
) -> None:
    result = merge(tmp_path, bert, {role: grown[role] for role in roles}, method, task="classification")
    short, long, found = heads(grown["2"], grown["3"], tmp_path / "job/out/model")
    assert torch.equal(found[2], long[2])
    assert torch.allclose(found[:2], (short + long[:2]) / 2, atol=1e-6)
    assert result.labels == CLASSES[:3]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "job/out/model")
    assert list(model.config.id2label.values()) == list(CLASSES[:3])


def test_a_row_that_some_have_is_the_mean_of_theirs(tmp_path: Path, bert: Path, grown: dict[str, Path]) -> None:
    merge(tmp_path, bert, grown, {"kind": "soup"}, task="classification")
    two, three, four, found = heads(*grown.values(), tmp_path / "job/out/model")
    assert torch.allclose(found[:2], (two + three[:2] + four[:2]) / 3, atol=1e-6)
    assert torch.allclose(found[2], (three[2] + four[2]) / 2, atol=1e-6)
    assert torch.allclose(found[3], four[3], atol=1e-7)


def test_changes_are_counted_from_a_base_of_fewer_classes(tmp_path: Path, grown: dict[str, Path]) -> None:
    parents = {role: grown[role] for role in ("2", "3")}
    merge(tmp_path, grown["2"], parents, {"kind": "task-arithmetic", "lam": 0.5}, task="classification")
    _, long, found = heads(grown["2"], grown["3"], tmp_path / "job/out/model")
    assert torch.equal(found[2], long[2])


def test_fisher_copies_the_rows_that_one_model_has_alone(tmp_path: Path, bert: Path, grown: dict[str, Path]) -> None:
    parents = {
        role: {"model": {"path": str(grown[role])}, "rows": rows_of(tmp_path, role, CLASSES[: int(role)])}
        for role in ("2", "3")
    }
    result = merge(tmp_path, bert, parents, {"kind": "fisher"}, task="classification")
    short, long, found = heads(grown["2"], grown["3"], tmp_path / "job/out/model")
    assert torch.allclose(found[2], long[2], atol=1e-7)
    low, high = torch.minimum(short, long[:2]), torch.maximum(short, long[:2])
    assert ((found[:2] >= low - 1e-6) & (found[:2] <= high + 1e-6)).all()
    assert result.facts["estimators"] == {"2": "exact", "3": "exact"}


def test_adapters_with_heads_of_their_own_become_one_with_the_longest(tmp_path: Path, bert: Path) -> None:
    """The first adapter knows fewer classes; the merged one has the classes of the second."""
    extra: dict[str, Any] = {"targets": ("query",), "task_type": "SEQ_CLS", "modules_to_save": ["classifier"]}
    made, read = {}, []
    for seed, count in ((1, 2), (2, 3)):
        made[str(count)] = path = adapter(bert, tmp_path / str(count), seed=seed, **extra)
        tensors = load_file(path / "adapter_model.safetensors")
        head = {f"base_model.model.{name}" for name in ROWS}
        tensors |= {name: torch.randn(count, *tensors[name].shape[1:]) for name in head}
        save_file(tensors, path / "adapter_model.safetensors", {"format": "pt"})
        (path / "labels.json").write_text(json.dumps({"format": 1, "labels": CLASSES[:count]}))
        read.append(tensors["base_model.model.classifier.weight"])
    parents = {role: on(bert, path) for role, path in made.items()}
    for into in ("adapter", "model"):
        result = merge(tmp_path / into, bert, parents, {"kind": "soup"}, task="classification", into=into)
        assert result.labels == CLASSES[:3]
    out = tmp_path / "adapter/job/out/adapter"
    found = load_file(out / "adapter_model.safetensors")["base_model.model.classifier.weight"]
    assert torch.allclose(found[:2], (read[0] + read[1][:2]) / 2)
    assert torch.equal(found[2], read[1][2])
    assert json.loads((out / "labels.json").read_bytes())["labels"] == list(CLASSES[:3])
    assert torch.equal(weights(tmp_path / "model/job/out/model")["classifier.weight"], found)


def test_a_head_that_was_never_taught_is_not_averaged(tmp_path: Path, bert: Path, grown: dict[str, Path]) -> None:
    with pytest.raises(Refused, match="calm, angry do not begin with -"):
        merge(tmp_path, bert, {"never": bert, "2": grown["2"]}, {"kind": "soup"}, task="classification")


def test_lines_after_an_interpolation_scales_one_change(tmp_path: Path, grown: dict[str, Path]) -> None:
    method = {"kind": "lines", "alpha": 0.5, "beta": 0.5, "after": {"kind": "interpolate", "share": 0.5}}
    merge(tmp_path, grown["2"], {"candidate": grown["3"]}, method, task="classification")
    name = "bert.encoder.layer.{}.output.dense.weight"
    base, candidate, found = (weights(one) for one in (grown["2"], grown["3"], tmp_path / "job/out/model"))
    for layer, scale in ((0, 0.25), (1, 0.5)):
        key = name.format(layer)
        assert torch.allclose(found[key], base[key] + scale * (candidate[key] - base[key]), atol=1e-6)
