"""Merging as arithmetic: the golden values of METHODS 7, and what has to hold for any numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from strategies.errors import BadPlan, Refused
from strategies.merging.arithmetic import blended, dropped
from strategies.merging.blocks import block_of, block_scales, draw_half
from strategies.merging.choice import Judged, choose, gain, within
from strategies.merging.fisher import empirical_fisher, exact_fisher
from strategies.merging.greedy import greedy_soup
from strategies.merging.low_rank import LowRank, factor_gap, stacked, truncated, truncated_dense
from strategies.merging.methods import maker_for, mean_change
from strategies.merging.shares import share_gone_back
from strategies.merging.trimming import find_trim, kept_count
from strategies.settings.consolidation import EmaConsolidation
from strategies.settings.merging import (
    DareMerge,
    FisherMerge,
    HalfResetMerge,
    InterpolateMerge,
    LinesMerge,
    Merge,
    SoupMerge,
    TaskArithmeticMerge,
    TiesMerge,
    goes_back,
)
from tests.training import toys


def zeros(like: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.zeros_like(one) for name, one in like.items()}


# --- TIES --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [5, 3, 1])
def test_ties_gives_the_golden_vector_however_the_model_is_cut_into_tensors(tmp_path: Path, cut: int) -> None:
    parents = toys.flat(toys.ROWS, cut=cut)
    given = toys.inputs(tmp_path, zeros(parents[0]), parents)
    found = toys.merged(TiesMerge(density=0.4), given)
    assert torch.allclose(found, torch.tensor([-0.9, 0, -0.6, 0.65, 0]), atol=1e-6)


def test_ties_is_counted_from_the_base_and_scaled(tmp_path: Path) -> None:
    base = {"a": torch.tensor([1.0, 2, 3, 4, 5])}
    parents = [{"a": base["a"] + row["a"]} for row in toys.flat(toys.ROWS)]
    found = toys.merged(TiesMerge(density=0.4, lam=0.5), toys.inputs(tmp_path, base, parents))
    assert torch.allclose(found, base["a"] + 0.5 * torch.tensor([-0.9, 0, -0.6, 0.65, 0]), atol=1e-6)


def test_changes_that_cancel_out_take_the_majority_sign_of_the_whole_model(tmp_path: Path) -> None:
    parents = toys.flat([[1.0, -3, -5, -1, 0], [-1.0, -3, -5, -1, 0]], cut=2)
    given = toys.inputs(tmp_path, zeros(parents[0]), parents)
    assert toys.merged(TiesMerge(density=1), given).tolist() == [-1, -3, -5, -1, 0]


def test_a_trim_keeps_exactly_its_count_over_all_tensors() -> None:
    torch.manual_seed(0)
    tensors = {f"t{n}": torch.randn(7, n + 1) * 10.0**n for n in range(4)}
    whole = torch.cat([one.reshape(-1) for one in tensors.values()])
    for density in (0.0, 0.1, 0.29, 0.5, 1.0):
        trim = find_trim(list(tensors), tensors.__getitem__, density)
        kept = torch.cat([trim(name, one).reshape(-1) for name, one in tensors.items()])
        count = kept_count(density, len(whole))
        assert int((kept != 0).sum()) == count
        assert torch.equal(
            kept.abs().sort().values[len(whole) - count :], whole.abs().sort().values[len(whole) - count :]
        )


def test_of_equal_magnitudes_the_first_stay() -> None:
    tensors = {"a": torch.tensor([1.0, -2, 2]), "b": torch.tensor([-2.0, 2, 3])}
    trim = find_trim(["a", "b"], tensors.__getitem__, 0.67)
    assert [trim(name, one).tolist() for name, one in tensors.items()] == [[0, -2, 2], [-2, 0, 3]]


def test_a_density_means_its_decimal_digits() -> None:
    assert int(0.29 * 100) == 28
    assert kept_count(0.29, 100) == 29


def test_a_change_that_is_not_finite_is_refused_by_name() -> None:
    with pytest.raises(Refused, match="tensor bad is not finite"):
        find_trim(["bad"], lambda _: torch.tensor([1.0, float("nan")]), 0.5)


# --- DARE --------------------------------------------------------------------------------------------------------


def test_dropping_keeps_the_expectation() -> None:
    change = torch.tensor([0.5, -0.1, 0.02, -0.8, 0.3])
    masks = torch.stack([dropped(change, 0.9, key=f"{n}/m/t") for n in range(10_000)])
    kept = masks != 0
    assert torch.allclose(masks[kept], (change * 10).expand_as(masks)[kept])
    assert torch.allclose(kept.float().mean(0), torch.full((5,), 0.1), atol=0.015)
    assert torch.allclose(masks.mean(0), change, atol=0.15 * 0.8)


def test_a_mask_depends_on_model_and_tensor_and_seed_alone() -> None:
    change = torch.ones(1000)
    first = dropped(change, 0.5, key="1/a/t")
    torch.manual_seed(9)
    assert torch.equal(first, dropped(change, 0.5, key="1/a/t"))
    assert all(not torch.equal(first, dropped(change, 0.5, key=key)) for key in ("2/a/t", "1/b/t", "1/a/u"))


def test_a_mask_is_the_same_in_every_release() -> None:
    kept = dropped(torch.ones(16), 0.5, key="1234/m1/a").nonzero().flatten().tolist()
    assert kept == [2, 5, 8, 9, 11, 12, 13, 14]


@pytest.mark.parametrize("then", ["mean", "ties"])
def test_without_dropping_dare_is_the_merge_that_follows(tmp_path: Path, then: str) -> None:
    parents = toys.flat(toys.ROWS, cut=2)
    given = toys.inputs(tmp_path, zeros(parents[0]), parents)
    found = toys.merged(DareMerge(drop=0, then=then, density=0.4), given)
    expected = toys.merged(SoupMerge() if then == "mean" else TiesMerge(density=0.4), given)
    assert torch.allclose(found, expected, atol=1e-6)


def test_dare_reports_how_large_changes_are(tmp_path: Path) -> None:
    given = toys.inputs(tmp_path, {"a": torch.zeros(4)}, [{"a": torch.tensor([0.1, -0.1, 0.2, 0.0])}])
    assert mean_change(given, given.members[0]) == pytest.approx(0.1)


# --- soups, task arithmetic, interpolation, half-reset -----------------------------------------------------------


def test_a_uniform_soup_is_the_mean_and_leaves_equal_numbers_alone(tmp_path: Path) -> None:
    same = torch.randn(50)
    parents = [{"a": torch.tensor([float(n)]), "b": same} for n in (1, 2, 6)]
    found = toys.merged(SoupMerge(), toys.inputs(tmp_path, parents[0], parents))
    assert found[0] == 3
    assert torch.equal(found[1:], same)


def test_a_soup_heeds_weights(tmp_path: Path) -> None:
    parents = [{"a": torch.tensor([0.0])}, {"a": torch.tensor([4.0])}]
    given = toys.inputs(tmp_path, parents[0], parents, weights=(3, 1))
    assert toys.merged(SoupMerge(), given).tolist() == [1]


@pytest.mark.parametrize("lam", [0.0, 0.4, 1.0, -1.0])
def test_task_arithmetic_adds_scaled_changes(tmp_path: Path, lam: float) -> None:
    base = {"a": torch.tensor([1.0, 2.0])}
    parents = [{"a": torch.tensor([2.0, 2.0])}, {"a": torch.tensor([1.0, 5.0])}]
    found = toys.merged(TaskArithmeticMerge(lam=lam), toys.inputs(tmp_path, base, parents))
    assert torch.allclose(found, torch.tensor([1 + lam, 2 + 3 * lam]))


@pytest.mark.parametrize(("share", "expected"), [(0.0, "candidate"), (1.0, "base")])
def test_interpolation_is_exact_at_its_ends(tmp_path: Path, share: float, expected: str) -> None:
    models = {"base": {"a": torch.randn(99)}, "candidate": {"a": torch.randn(99) * 1e4}}
    given = toys.inputs(tmp_path, models["base"], [models["candidate"]])
    assert torch.equal(toys.merged(InterpolateMerge(share=share), given), models[expected]["a"])


def test_interpolation_mixes_the_parents_share_in() -> None:
    assert blended(torch.tensor([0.0]), [(0.75, torch.tensor([4.0]))]).tolist() == [3]


@pytest.mark.parametrize(
    ("method", "share"),
    [
        (InterpolateMerge(share=0.2), 0.2),
        (LinesMerge(alpha=0.5), 0.25),
        (LinesMerge(alpha=0.5, beta=0.2, after=InterpolateMerge(share=0.2)), 0.52),
        (LinesMerge(beta=0.0, after=InterpolateMerge(share=0.2)), 0.0),
        (LinesMerge(alpha=1.0, beta=0.0, after=HalfResetMerge()), 0.5),
        (LinesMerge(beta=0.5, after=SoupMerge()), None),
        (SoupMerge(), None),
    ],
)
def test_what_goes_back_says_how_far(method: Merge, share: float | None) -> None:
    assert goes_back(method) is (share is not None)
    assert share_gone_back(method) == (None if share is None else pytest.approx(share))


def test_half_reset_puts_whole_tensors_back(tmp_path: Path) -> None:
    base, candidate = ({name: torch.randn(3, 3) for name in "abcd"} for _ in range(2))
    given = toys.inputs(tmp_path, base, [candidate])
    maker = maker_for(HalfResetMerge(names=("b", "d")), given)
    for name in "abcd":
        assert torch.equal(maker.tensor(name), (base if name in "bd" else candidate)[name])


def test_a_half_is_drawn_by_hash() -> None:
    names = [f"w{n}" for n in range(9)]
    assert draw_half(names, seed="1") == draw_half(names[::-1], seed="1")
    assert len(draw_half(names, seed="1")) == 4
    assert len({draw_half(names, seed=str(seed)) for seed in range(20)}) > 10


# --- Fisher ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", [True, False])
def test_fisher_gives_the_golden_vector(tmp_path: Path, normalise: bool) -> None:
    parents = [{"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 4.0])}]
    fishers = [{"a": torch.tensor([1.0, 3.0])}, {"a": torch.tensor([3.0, 1.0])}]
    given = toys.inputs(tmp_path, zeros(parents[0]), parents, fishers=fishers)
    assert toys.merged(FisherMerge(normalise=normalise), given).tolist() == [2.5, 2.5]


def test_where_nobody_knows_anything_fisher_is_the_plain_mean(tmp_path: Path) -> None:
    parents = [{"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 4.0])}]
    fishers = [{"a": torch.tensor([0.0, 100.0])}, {"a": torch.tensor([0.0, 1.0])}]
    found = toys.merged(FisherMerge(), toys.inputs(tmp_path, zeros(parents[0]), parents, fishers=fishers))
    assert found[0] == 2


def test_normalising_forgives_another_scale_of_information(tmp_path: Path) -> None:
    parents = [{"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([3.0, 4.0])}]
    fishers = [{"a": torch.tensor([1.0, 3.0])}, {"a": 1000 * torch.tensor([3.0, 1.0])}]
    given = toys.inputs(tmp_path, zeros(parents[0]), parents, fishers=fishers)
    assert torch.allclose(toys.merged(FisherMerge(), given), torch.tensor([2.5, 2.5]))


def test_a_head_that_one_model_has_alone_is_copied(tmp_path: Path) -> None:
    parents = [{"a": torch.tensor([1.0]), "classifier.weight": torch.tensor([7.0])}, {"a": torch.tensor([3.0])}]
    fishers = [{"a": torch.ones(1), "classifier.weight": torch.ones(1)}, {"a": torch.ones(1)}]
    given = toys.inputs(tmp_path, {"a": torch.zeros(1)}, parents, fishers=fishers)
    assert maker_for(FisherMerge(normalise=False), given).tensor("classifier.weight").tolist() == [7]


class Classifier(nn.Module):
    """Logits of a linear map, as transformers models answer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3, bias=False)

    def forward(self, inputs: Tensor) -> object:
        return type("Output", (), {"logits": self.head(inputs)})


def test_a_classifiers_fisher_information_is_exact_over_labels() -> None:
    """For logits W x: d log p(y) / d W = (one-hot(y) - p) x^T, so the sum over y with p(y) is p (1 - p) x^2."""
    torch.manual_seed(1)
    model = Classifier()
    rows = torch.randn(5, 1, 2)
    found = exact_fisher(model, [{"inputs": row} for row in rows])["head.weight"]
    likely = model.head(rows[:, 0]).softmax(-1).detach()
    expected = ((likely * (1 - likely))[:, :, None] * rows[:, 0, None].square()).mean(0)
    assert torch.allclose(found, expected, atol=1e-6)


def test_empirical_fisher_squares_each_examples_gradient_by_itself() -> None:
    torch.manual_seed(1)
    model = Classifier()
    rows, targets = torch.randn(4, 1, 6, 2), torch.tensor([[[0, 2, 1, -100, 1, 0]]] * 4)
    found = empirical_fisher(model, [({"inputs": row}, gold) for row, gold in zip(rows, targets, strict=True)])
    squares = []
    for row, gold in zip(rows, targets, strict=True):
        loss = nn.functional.cross_entropy(model.head(row[0]), gold[0], reduction="sum")
        squares.append(torch.autograd.grad(loss, model.head.weight)[0].square())
    assert torch.allclose(found["head.weight"], torch.stack(squares).mean(0), atol=1e-6)


def test_fisher_information_refuses_a_batch() -> None:
    with pytest.raises(ValueError, match="one example at a time, not 2"):
        exact_fisher(Classifier(), [{"inputs": torch.randn(2, 2)}])


# --- LiNeS -------------------------------------------------------------------------------------------------------

SIX = [f"model.layers.{n}.mlp.weight" for n in range(6)]


def test_lines_gives_the_golden_scales() -> None:
    scales = block_scales([*SIX, "model.embed_tokens.weight", "lm_head.weight"], alpha=0.2, beta=0.8)
    assert [scales[name] for name in SIX] == pytest.approx([0.2, 0.36, 0.52, 0.68, 0.84, 1.0])
    assert scales["model.embed_tokens.weight"] == scales["lm_head.weight"] == 0.2


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("transformer.h.3.attn.c_attn.weight", ("transformer.h", 3)),
        ("h.3.attn.c_attn.weight", ("h", 3)),
        ("bert.encoder.layer.11.output.dense.bias", ("bert.encoder.layer", 11)),
        ("encoder.block.2.layer.1.DenseReluDense.wi.weight", ("encoder.block", 2)),
        ("model.layers.4.mlp.experts.7.w1.weight", ("model.layers", 4)),
        ("classifier.weight", None),
        ("transformer.wte.weight", None),
    ],
)
def test_a_block_is_read_off_the_name(name: str, place: tuple[str, int] | None) -> None:
    assert block_of(name) == place


def test_encoder_and_decoder_count_by_themselves() -> None:
    names = [f"{stack}.block.{n}.w" for stack, blocks in (("encoder", 2), ("decoder", 3)) for n in range(blocks)]
    assert list(block_scales(names, alpha=0, beta=1).values()) == [0, 1, 0, 0.5, 1]


def test_without_blocks_lines_is_refused() -> None:
    with pytest.raises(Refused, match="block"):
        block_scales(["a"], alpha=0.5, beta=0.5)


def test_lines_on_one_candidate_keeps_all_of_the_last_block(tmp_path: Path) -> None:
    base = {name: torch.zeros(2) for name in (*SIX, "emb")}
    given = toys.inputs(tmp_path, base, [{name: torch.ones(2) for name in base}])
    maker = maker_for(LinesMerge(alpha=0.2), given)
    assert [float(maker.tensor(name)[0]) for name in SIX] == pytest.approx([0.2, 0.36, 0.52, 0.68, 0.84, 1.0])
    assert float(maker.tensor("emb")[0]) == pytest.approx(0.2)


def test_lines_after_a_merge_takes_alpha_from_the_norms(tmp_path: Path) -> None:
    base = {name: torch.zeros(2) for name in SIX[:2]}
    parents = [{name: torch.full((2,), value) for name in base} for value in (1.0, 3.0)]
    given = toys.inputs(tmp_path, base, parents)
    for after, alpha in ((TaskArithmeticMerge(lam=1.0), 0.5), (SoupMerge(), 1.0)):
        scaled, plain = maker_for(LinesMerge(beta=0.5, after=after), given), maker_for(after, given)
        factors = [float(scaled.tensor(name)[0] / plain.tensor(name)[0]) for name in SIX[:2]]
        assert factors == pytest.approx([alpha, alpha + 0.5])


# --- greedy soup -------------------------------------------------------------------------------------------------


def soup_of(values: dict[str, float], target: float) -> tuple[list[str], Callable[[str], float], Callable[[str], None]]:
    """Scores a soup by how near its mean is to ``target``."""
    total: list[float] = []
    asked: list[str] = []

    def score(name: str) -> float:
        asked.append(name)
        return -abs((sum(total) + values[name]) / (len(total) + 1) - target)

    return asked, score, lambda name: total.append(values[name])


def test_a_greedy_soup_takes_what_strictly_helps() -> None:
    values = {"far": 9.0, "best": 1.2, "same": 1.2, "helps": 0.7}
    asked, score, take = soup_of(values, 1.0)
    found = greedy_soup(list(values), score, take)
    assert found.kept == ["best", "helps"]
    assert asked == ["far", "best", "same", "helps", "same", "helps", "far"]
    assert found.together["same"] == found.alone["best"]


# --- low rank ----------------------------------------------------------------------------------------------------


def low_rank(seed: int, rank: int = 2) -> LowRank:
    made = torch.Generator().manual_seed(seed)
    return LowRank(b=torch.randn(7, rank, generator=made), a=torch.randn(rank, 5, generator=made))


def test_truncation_is_the_nearest_of_its_rank() -> None:
    whole = stacked([(0.5, low_rank(1)), (0.3, low_rank(2))])
    cut, lost = truncated(whole, 2)
    u, sizes, vh = torch.linalg.svd(whole.dense())
    assert torch.allclose(cut.dense(), u[:, :2] * sizes[:2] @ vh[:2], atol=1e-5)
    assert lost == pytest.approx(float(sizes[2:].norm()), rel=1e-4)
    assert cut.b.shape == (7, 2)
    assert torch.allclose(truncated_dense(whole.dense(), 2)[0].dense(), cut.dense(), atol=1e-5)


def test_a_change_within_the_rank_survives_and_more_rank_is_filled_up() -> None:
    cut, lost = truncated(low_rank(1), 4)
    assert torch.allclose(cut.dense(), low_rank(1).dense(), atol=1e-5)
    assert (cut.b.shape, cut.a.shape, lost) == ((7, 4), (4, 5), 0.0)


def test_averaging_factors_apart_misses_what_the_gap_says() -> None:
    members = [low_rank(1), low_rank(2)]
    mean = (members[0].dense() + members[1].dense()) / 2
    apart = ((members[0].b + members[1].b) / 2) @ ((members[0].a + members[1].a) / 2)
    missed, size = factor_gap(members)
    assert missed == pytest.approx(float((apart - mean).norm()), rel=1e-4)
    assert size == pytest.approx(float(mean.norm()), rel=1e-4)
    assert factor_gap([members[0], members[0]])[0] == pytest.approx(0, abs=1e-4)


# --- the choice of a repair --------------------------------------------------------------------------------------

SETS = (
    Judged(name="new", metric="loss", role="new"),
    Judged(name="anchor", metric="loss", role="old", tolerance=0.05),
    Judged(name="classes", metric="accuracy", role="old", tolerance=0.02),
)
PARENT = {"new": 4.0, "anchor": 2.0, "classes": 0.90}


def test_most_of_the_gain_within_every_tolerance_is_chosen() -> None:
    trials = {
        "forgets": {"new": 1.0, "anchor": 2.2, "classes": 0.90},
        "unlearns": {"new": 2.0, "anchor": 2.0, "classes": 0.87},
        "half way": {"new": 3.0, "anchor": 2.09, "classes": 0.885},
        "timid": {"new": 3.5, "anchor": 2.0, "classes": 0.90},
    }
    assert choose(SETS, trials, PARENT) == "half way"
    assert gain(SETS, trials["half way"], PARENT) == 0.25
    assert not within(SETS, trials["forgets"], PARENT)


@pytest.mark.parametrize("new", [4.0, 4.5, float("nan")])
def test_without_a_gain_there_is_no_repair(new: float) -> None:
    assert choose(SETS, {"same": {**PARENT, "new": new}}, PARENT) is None


def test_of_equal_trials_the_first_is_chosen() -> None:
    good = {**PARENT, "new": 3.0}
    assert choose(SETS, {"first": good, "second": dict(good)}, PARENT) == "first"


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"w": torch.zeros(2)}, "m2 has no tensor layers.0.w"),
        ({"w": torch.zeros(2), "layers.0.w": torch.zeros(4)}, r"tensor layers.0.w is \[4\] in m2 and \[3\] in m1"),
        ({"w": torch.zeros(2), "layers.0.w": torch.zeros(3), "x": torch.zeros(1)}, "m1 has no tensor x"),
    ],
)
def test_models_that_differ_are_refused_by_tensor(tmp_path: Path, other: dict[str, Tensor], message: str) -> None:
    first = {"w": torch.zeros(2), "layers.0.w": torch.zeros(3)}
    with pytest.raises(Refused, match=message):
        toys.inputs(tmp_path, first, [first, other])


@pytest.mark.parametrize(
    ("method", "parents", "weights"),
    [
        (InterpolateMerge(), 2, None),
        (TiesMerge(), 2, (1, 2)),
        (SoupMerge(), 2, (2, -1)),
        (FisherMerge(), 2, None),
        (HalfResetMerge(names=("nobody",)), 1, None),
    ],
)
def test_a_method_that_does_not_fit_is_a_bad_plan(
    tmp_path: Path, method: Merge, parents: int, weights: tuple[float, ...] | None
) -> None:
    models = [{"a": torch.ones(2)}] * parents
    with pytest.raises(BadPlan):
        maker_for(method, toys.inputs(tmp_path, models[0], models, weights=weights))


def test_settings_are_closed_and_told_apart_by_kind() -> None:
    adapter: TypeAdapter[Merge] = TypeAdapter(Merge)
    assert adapter.validate_python({"kind": "ties"}) == TiesMerge(density=0.2, lam=1.0)
    for wrong in (
        {"kind": "ties", "drop": 0.9},
        {"kind": "ema"},
        {"kind": "lines"},
        {"kind": "lines", "after": {"kind": "soup"}},
    ):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)


@pytest.mark.parametrize(("settings", "decay"), [({}, 0.998), ({"horizon": 5}, 0.9996), ({"decay": 0.9}, 0.9)])
def test_an_averages_decay_is_of_the_stages_length(settings: dict[str, float], decay: float) -> None:
    assert EmaConsolidation(**settings).decay_over(500) == pytest.approx(decay)
