"""Fisher information of language models from tokens that they draw themselves (METHODS 7.1)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn

from strategies.inference.encoding import IGNORED
from strategies.merging.fisher import empirical_fisher, sampled_fisher
from tests import models
from tests.training import makers
from tests.training.merges import merge, shifted, weights

Examples = list[tuple[dict[str, Tensor], Tensor]]


class Unigrams(nn.Module):
    """A language model whose next token does not depend on anything: one vector of logits."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.tensor([2.0, 0.0, -1.0]))

    def forward(self, input_ids: Tensor) -> object:
        return type("Output", (), {"logits": self.scores.expand(*input_ids.shape, 3)})


def examples(count: int, *, counted: int, length: int = 4) -> Examples:
    """Rows of which the last ``counted`` targets count; the gold token is always the model's least likely one."""
    targets = torch.full((1, length), IGNORED)
    targets[0, length - counted :] = 2
    return [({"input_ids": torch.zeros(1, length, dtype=torch.long)}, targets)] * count


def test_a_known_expectation_is_met() -> None:
    """d log p(y) / d scores = one-hot(y) - p, so a token's expected square is p (1 - p), and tokens add up."""
    model = Unigrams()
    likely = model.scores.softmax(-1).detach()
    for counted in (1, 3):
        found = sampled_fisher(model, examples(4000, counted=counted), seed=7)["scores"]
        assert torch.allclose(found, counted * likely * (1 - likely), rtol=0.1)
    gold = empirical_fisher(model, examples(1, counted=1))["scores"]
    assert torch.allclose(gold, (torch.tensor([0.0, 0, 1]) - likely).square())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Examples]:
    folder = models.llama(tmp_path_factory.mktemp("tiny") / "llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    rows = torch.randint(0, 500, (3, 1, 12), generator=torch.Generator().manual_seed(1))
    return model, [({"input_ids": row}, torch.cat([row[:, 1:], torch.tensor([[IGNORED]])], 1)) for row in rows]


def test_draws_are_of_the_seed_alone(tiny: tuple[nn.Module, Examples]) -> None:
    model, rows = tiny
    first = sampled_fisher(model, rows, seed=1)
    torch.manual_seed(99)
    again, other = (sampled_fisher(model, rows, seed=seed) for seed in (1, 2))
    makers.assert_equal(first, again)
    gold = empirical_fisher(model, rows)
    for differs in (other, gold):
        assert any(not torch.equal(first[name], one) for name, one in differs.items())
    assert all((one >= 0).all() and torch.isfinite(one).all() for one in first.values())


@pytest.mark.parametrize("task", ["causal-lm", "sft"])
def test_a_merge_samples_unless_it_is_told_otherwise(tmp_path: Path, llama: Path, task: str) -> None:
    documents = makers.text_documents(4) if task == "causal-lm" else makers.dialogues(4)
    parents = {}
    for number, role in enumerate(("one", "two"), 1):
        rows = makers.as_json(makers.source(tmp_path / f"{role}.parquet", documents))
        parents[role] = {"model": {"path": str(shifted(llama, tmp_path / role, seed=number))}, "rows": rows}
    found = {}
    for name, more in (("first", {}), ("again", {}), ("gold", {"estimator": "empirical"})):
        method = {"kind": "fisher", "documents": 3, **more}
        result = merge(tmp_path / name, llama, parents, method, task=task)
        assert set(result.facts["estimators"].values()) == {more.get("estimator", "sampled")}
        found[name] = weights(tmp_path / name / "job/out/model")
    makers.assert_equal(found["first"], found["again"])
    assert any(not torch.equal(one, found["gold"][name]) for name, one in found["first"].items())
