"""What a merge job draws by lot and what it warns of: both stand in its facts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from strategies.errors import Refused
from strategies.merging.methods import settled
from strategies.settings.merging import HalfResetMerge, LinesMerge
from tests import models
from tests.training import makers, toys
from tests.training.merges import adapter, merge, on, sets, shifted, weights


def half_reset(tmp_path: Path, base: Path, candidate: Any, **more: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {key: more.pop(key) for key in ("names", "seed") if key in more}
    facts = merge(tmp_path, base, {"c": candidate}, {"kind": "half-reset", **settings}, **more).facts
    assert facts["method"]["kind"] == "half-reset"
    return dict(facts["method"])


def test_half_of_the_matrices_goes_back_and_the_job_names_them(tmp_path: Path, llama: Path) -> None:
    candidate = shifted(llama, tmp_path / "c", seed=1)
    names = half_reset(tmp_path, llama, candidate)["names"]
    old, new, found = (weights(path) for path in (llama, candidate, tmp_path / "job/out/model"))
    matrices = [name for name, one in old.items() if "layers." in name and one.ndim == 2]
    assert set(names) < set(matrices)
    assert len(names) == len(matrices) // 2
    makers.assert_equal(found, {name: (old if name in names else new)[name] for name in old})


def test_the_draw_is_of_the_seed_and_that_of_a_repair(tmp_path: Path, llama: Path) -> None:
    candidate = shifted(llama, tmp_path / "c", seed=1)
    drawn = [half_reset(tmp_path / str(n), llama, candidate, seed=seed)["names"] for n, seed in enumerate((5, 5, 6))]
    assert drawn[0] == drawn[1] != drawn[2]
    listed = sets(tmp_path, {"new": makers.text_documents(6)})
    repair = {"kind": "repair", "shares": [0.5], "half_resets": 2}
    trials = merge(tmp_path / "repair", llama, {"c": candidate}, repair, sets=listed).facts["trials"]
    # The tests' jobs have the seed 5.
    assert trials["half-reset-1"]["method"]["names"] == drawn[0]
    assert trials["half-reset-2"]["method"]["names"] != drawn[0]
    assert half_reset(tmp_path / "named", llama, candidate, names=drawn[2][:1])["names"] == drawn[2][:1]


def test_of_an_adapter_half_of_what_it_adapts_goes_back(tmp_path: Path, llama: Path) -> None:
    candidate = on(llama, adapter(llama, tmp_path / "c", seed=1))
    for into in ("adapter", "model"):
        names = half_reset(tmp_path / into, llama, candidate, into=into)["names"]
        assert len(names) == 2
        assert all("q_proj" in name or "v_proj" in name for name in names)


def test_what_lines_follows_is_drawn_too(tmp_path: Path) -> None:
    models = [{f"layers.{n}.w": torch.full((2, 2), float(n)) for n in range(4)} for _ in range(2)]
    given = toys.inputs(tmp_path, models[0], models[1:])
    found = settled(LinesMerge(beta=0.5, after=HalfResetMerge()), given)
    assert isinstance(found, LinesMerge)
    assert found.after == settled(HalfResetMerge(), given)
    assert isinstance(found.after, HalfResetMerge)
    assert len(found.after.names or ()) == 2


def test_where_there_is_no_half_none_is_drawn(tmp_path: Path) -> None:
    model = {"layers.0.w": torch.ones(2, 2), "head": torch.ones(2, 2)}
    with pytest.raises(Refused, match="no half to draw"):
        settled(HalfResetMerge(), toys.inputs(tmp_path, model, [model]))


def test_lines_scales_the_change_that_fisher_made(tmp_path: Path, llama: Path) -> None:
    parents = {}
    for number, role in enumerate(("one", "two"), 1):
        rows = makers.as_json(makers.source(tmp_path / f"{role}.parquet", makers.text_documents(3)))
        parents[role] = {"model": {"path": str(shifted(llama, tmp_path / role, seed=number))}, "rows": rows}
    fisher = {"kind": "fisher"}
    merge(tmp_path / "fisher", llama, parents, fisher)
    facts = merge(tmp_path, llama, parents, {"kind": "lines", "alpha": 0.2, "beta": 0.5, "after": fisher}).facts
    assert facts["estimators"] == {"one": "sampled", "two": "sampled"}
    base, merged, found = (
        weights(path) for path in (llama, tmp_path / "fisher/job/out/model", tmp_path / "job/out/model")
    )
    for name, tensor in found.items():
        scale = 0.7 if "layers.1." in name else 0.2
        assert torch.allclose(tensor - base[name], scale * (merged[name] - base[name]), atol=1e-6)


@pytest.mark.parametrize(("size", "warned"), [(1e-3, []), (1e-2, ["two"])])
def test_changes_too_large_for_dare_are_warned_of(tmp_path: Path, llama: Path, size: float, warned: list[str]) -> None:
    parents = {"one": shifted(llama, tmp_path / "one", seed=1, size=1e-3)}
    parents["two"] = shifted(llama, tmp_path / "two", seed=2, size=size)
    for name, method in (
        ("dare", {"kind": "dare"}),
        ("lines", {"kind": "lines", "beta": 0, "after": {"kind": "dare"}}),
    ):
        facts = merge(tmp_path / name, llama, parents, method).facts
        assert [role for one in facts["warnings"] for role in parents if f"those of {role} are" in one] == warned


def albert(folder: Path, *, seed: int) -> Path:
    """A classifier whose blocks share their weights, so that no name shows a block."""
    labels = ("calm", "angry")
    models.tokenizer(folder)
    torch.manual_seed(seed)
    config = transformers.AlbertConfig(
        vocab_size=models.VOCABULARY,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        pad_token_id=1,
        id2label=dict(enumerate(labels)),
        label2id={label: at for at, label in enumerate(labels)},
    )
    transformers.AlbertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_a_repair_skips_what_the_architecture_has_no_blocks_for(tmp_path: Path) -> None:
    parent = albert(tmp_path / "parent", seed=1)
    candidate = shifted(parent, tmp_path / "candidate", seed=2)
    listed = sets(tmp_path, {"new": makers.labelled(8)})
    facts = merge(
        tmp_path, parent, {"candidate": candidate}, {"kind": "repair"}, task="classification", sets=listed
    ).facts
    assert list(facts["trials"]) == ["interpolate-0.25", "interpolate-0.5", "interpolate-0.75"]
    assert facts["skipped"].keys() == {"lines-0.5", "half-reset-1"}
    assert "LiNeS cannot tell" in facts["skipped"]["lines-0.5"]
    assert "no half to draw" in facts["skipped"]["half-reset-1"]
