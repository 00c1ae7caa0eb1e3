"""Half fine-tuning's draw, on the parameter tables of real architectures."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations, pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from strategies.contract import Parameter
from strategies.errors import BadPlan
from strategies.parts import FrozenSlice, HalfSelection
from strategies.selection.half import choose, new_bytes_bound, new_share, realised
from strategies.selection.roles import Piece, Unit, adapted_layers, blocks, embeddings, layers
from strategies.settings import Json, LoraSettings
from strategies.settings.selection import HalfSettings
from tests.strategies.tables import GROUPED, KNOWN, MULTI_HEAD, table

LORA = LoraSettings(r=2)


def drawn(
    parameters: tuple[Parameter, ...],
    *,
    seed: int = 1,
    stage: int = 1,
    lora: LoraSettings | None = None,
    **settings: Any,
) -> HalfSelection:
    return choose(parameters, settings=HalfSettings(**settings), seed=seed, stage=stage, lora=lora)


def kept(unit: Unit, selection: HalfSelection) -> bool:
    """Whether a unit stays; it must stay or move as a whole."""
    answers = {piece.name in selection.frozen or inside(piece, selection) for piece in unit.pieces}
    assert len(answers) == 1
    return answers.pop()


def inside(piece: Piece, selection: HalfSelection) -> bool:
    parts = selection.slices.get(piece.name, ())
    return piece.part is not None and any(
        part.dim == piece.part.dim and part.start <= piece.part.start and piece.part.stop <= part.stop for part in parts
    )


def count(units: Iterable[Unit], selection: HalfSelection) -> int:
    return sum(kept(unit, selection) for unit in units)


LLAMA = (
    "model.layers",
    "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj",
    "mlp.gate_proj mlp.up_proj mlp.down_proj",
    "input_layernorm post_attention_layernorm",
)
GEMMA2 = (*LLAMA[:3], f"{LLAMA[3]} pre_feedforward_layernorm post_feedforward_layernorm")
BERT = (
    "bert.encoder.layer",
    "attention.self.query attention.self.key attention.self.value attention.output.dense",
    "intermediate.dense output.dense",
    "attention.output.LayerNorm output.LayerNorm",
)
NAMES: dict[str, tuple[str, str, str, str]] = {
    **dict.fromkeys(("llama", "llama-gqa", "llama-tied", "mistral", "qwen2", "qwen3", "gemma"), LLAMA),
    **dict.fromkeys(("gemma2", "gemma3"), GEMMA2),
    "phi3": ("model.layers", "self_attn.qkv_proj self_attn.o_proj", "mlp.gate_up_proj mlp.down_proj", LLAMA[3]),
    "phi": (
        "model.layers",
        "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.dense",
        "mlp.fc1 mlp.fc2",
        "input_layernorm",
    ),
    "opt": (
        "model.decoder.layers",
        "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj",
        "fc1 fc2",
        "self_attn_layer_norm final_layer_norm",
    ),
    "gpt2": ("transformer.h", "attn.c_attn attn.c_proj", "mlp.c_fc mlp.c_proj", "ln_1 ln_2"),
    "bert": BERT,
    "roberta": ("roberta.encoder.layer", *BERT[1:]),
    "distilbert": (
        "distilbert.transformer.layer",
        "attention.q_lin attention.k_lin attention.v_lin attention.out_lin",
        "ffn.lin1 ffn.lin2",
        "sa_layer_norm output_layer_norm",
    ),
    "modernbert": ("model.layers", "attn.Wqkv attn.Wo", "mlp.Wi mlp.Wo", "attn_norm mlp_norm"),
}
"""Of each shape its stack of blocks, and the modules of a block's attention, feed-forward and norms."""
FUSED = {"qkv_proj": (0, 16, 24, 32), "gate_up_proj": (0, 24, 48), "c_attn": (0, 16, 32, 48)}
FUSED |= {"Wqkv": FUSED["c_attn"], "Wi": FUSED["gate_up_proj"]}
"""Where the matrices of one module begin and end."""


def frozen_in(block: str, modules: str, selection: HalfSelection) -> int:
    """How many matrices or norms of a block stay."""
    found = 0
    for module in modules.split():
        name = f"{block}.{module}.weight"
        edges = FUSED.get(module.rpartition(".")[2], (0, 1))
        stays = {at for part in selection.slices.get(name, ()) for at in range(part.start, part.stop)}
        found += sum(name in selection.frozen or {*range(*pair)} <= stays for pair in pairwise(edges))
    return found


@pytest.mark.parametrize("depth", range(1, 6))
@pytest.mark.parametrize("name", NAMES)
def test_half_of_each_category_stays_in_each_layer_and_nothing_outside(name: str, depth: int) -> None:
    stack, *categories = NAMES[name]
    for stage in range(1, 4):
        selection = drawn(table(name, depth), stage=stage)
        assert all(one.startswith(f"{stack}.") for one in (*selection.frozen, *selection.slices))
        attention, feed_forward, norms = (
            [frozen_in(f"{stack}.{at}", modules, selection) for at in range(depth)] for modules in categories
        )
        assert attention == [2] * depth
        two = name in {"phi", "opt", "gpt2", "bert", "roberta", "distilbert"}
        assert sorted(feed_forward) == ([1] * depth if two else [1] * (depth - depth // 2) + [2] * (depth // 2))
        if name == "phi":
            assert sum(norms) == depth // 2
        elif name == "modernbert":
            # Its first block has one norm alone.
            assert norms[0] in {0, 1}
            assert norms[1:] == [1] * (depth - 1)
        else:
            assert norms == [len(categories[2].split()) // 2] * depth


def test_every_known_shape_is_counted_by_its_own_names() -> None:
    assert set(NAMES) == set(KNOWN)


@pytest.mark.parametrize("depth", [1, 2, 3, 8])
@pytest.mark.parametrize("name", [name for name in KNOWN if name not in {"phi", "modernbert"}])
def test_half_of_the_blocks_numbers_move(name: str, depth: int) -> None:
    for stage in range(1, 5):
        share = realised(table(name, depth), drawn(table(name, depth), stage=stage))
        # Biases of inner and outer width differ by a few numbers, which only these tiny widths show.
        assert share == pytest.approx(0.5, abs=1 / (6 * depth) + 0.01)


def test_without_biases_the_band_of_half_is_exact() -> None:
    for depth in (1, 2, 3, 4, 7):
        for name in ("llama", "llama-gqa", "gemma2"):
            parameters = table(name, depth)
            settings: Json = {} if name == "llama" else {"pairing": "gqa_balanced"}
            selection = drawn(parameters, **settings)
            assert abs(realised(parameters, selection) - 0.5) <= 1 / (6 * depth) * (depth % 2) + 1e-12


def attention_pairs(name: str, **settings: Any) -> set[str]:
    """Which pairs of attention matrices stay, over many stages."""
    found = set()
    for stage in range(1, 60):
        selection = drawn(table(name), stage=stage, **settings)
        for layer in layers(table(name)):
            found.add("".join(unit.role for unit in layer.attention if kept(unit, selection)))
    return found


BALANCED = {"qk", "qv", "ko", "vo"}
ALL_PAIRS = {"".join(pair) for pair in combinations("qkvo", 2)}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_equal_heads_may_keep_any_two_attention_matrices(name: str) -> None:
    assert attention_pairs(name) == attention_pairs(name, pairing="param_aware") == ALL_PAIRS
    assert attention_pairs(name, pairing="gqa_balanced") == BALANCED


@pytest.mark.parametrize("name", ["llama-gqa", "qwen2", "phi3"])
def test_grouped_heads_keep_one_of_q_and_o_and_one_of_k_and_v(name: str) -> None:
    assert attention_pairs(name) == attention_pairs(name, pairing="param_aware") == BALANCED
    assert attention_pairs(name, pairing="uniform") == ALL_PAIRS


def test_a_draw_depends_on_seed_and_stage_alone() -> None:
    parameters = table("llama", 4)
    first = drawn(parameters)
    assert drawn(parameters) == first
    assert drawn(parameters, stage=2).frozen != first.frozen
    assert drawn(parameters, seed=2).frozen != first.frozen


def test_a_draw_is_the_same_on_every_machine() -> None:
    assert [".".join(name.split(".")[2:-1]) for name in drawn(table("llama")).frozen] == [
        "0.self_attn.q_proj",
        "0.self_attn.k_proj",
        "0.mlp.gate_proj",
        "0.mlp.down_proj",
        "0.input_layernorm",
        "1.self_attn.q_proj",
        "1.self_attn.k_proj",
        "1.mlp.up_proj",
        "1.post_attention_layernorm",
    ]


def test_every_matrix_moves_in_some_stage() -> None:
    parameters = table("llama-gqa")
    always = set.intersection(*(set(drawn(parameters, stage=stage).frozen) for stage in range(1, 30)))
    assert always == set()


def test_biases_and_inner_norms_follow_their_matrix() -> None:
    for name in ("qwen2", "qwen3", "bert"):
        for layer in layers(table(name)):
            names = {unit.role: {piece.name.split(".")[-2] for piece in unit.pieces} for unit in layer.attention}
            assert names["q"] in ({"q_proj"}, {"q_proj", "q_norm"}, {"query"})
    assert [len(unit.pieces) for unit in layers(table("qwen2"))[0].attention] == [2, 2, 2, 1]
    assert [len(unit.pieces) for unit in layers(table("qwen3"))[0].attention] == [2, 2, 1, 1]


def test_the_norms_of_a_layer_are_counted_where_they_stand() -> None:
    found = {name: len(layers(table(name))[1].norms) for name in ("llama", "gemma2", "gemma3", "bert", "phi")}
    assert found == {"llama": 2, "gemma2": 4, "gemma3": 4, "bert": 2, "phi": 1}


def parts(name: str, role: str) -> list[tuple[int, int, int]]:
    unit = next(u for u in (*layers(table(name))[0].attention, *layers(table(name))[0].feed_forward) if u.role == role)
    return [(p.part.dim, p.part.start, p.part.stop) for p in unit.pieces if p.part is not None]


def test_a_fused_projection_is_cut_where_its_parts_lie() -> None:
    assert [parts("phi3", role) for role in "qkv"] == [[(0, 0, 16)], [(0, 16, 24)], [(0, 24, 32)]]
    assert [parts("phi3", role) for role in ("gate", "up")] == [[(0, 0, 24)], [(0, 24, 48)]]
    # A Conv1D's matrix is (in, out): the parts lie along the second dimension, and along the first of its bias.
    assert parts("gpt2", "k") == [(1, 16, 32), (0, 16, 32)]


def test_neighbouring_slices_are_one_and_a_whole_matrix_has_none() -> None:
    found = [drawn(table("phi3", 4), stage=stage) for stage in range(1, 20)]
    joined = {part for selection in found for all_parts in selection.slices.values() for part in all_parts}
    assert FrozenSlice(dim=0, start=0, stop=24) in joined
    assert FrozenSlice(dim=0, start=0, stop=48) not in joined
    assert any("gate_up_proj" in name for selection in found for name in selection.frozen)


def test_model_level_keeps_half_of_all_matrices_wherever_they_stand() -> None:
    read = layers(table("llama-gqa", 4))
    selection = drawn(table("llama-gqa", 4), level="model")
    matrices = [unit for layer in read for unit in (*layer.attention, *layer.feed_forward)]
    assert count(matrices, selection) == len(matrices) // 2
    assert count([unit for layer in read for unit in layer.norms], selection) == 4
    assert {count(layer.attention, selection) for layer in read} != {2}


@pytest.mark.parametrize("name", ["llama", "gpt-neox", "mixtral"])
def test_layer_level_keeps_half_of_the_layers_of_any_model(name: str) -> None:
    parameters = table(name, 4)
    found = set()
    for stage in range(1, 30):
        frozen = set(drawn(parameters, level="layer", stage=stage).frozen)
        whole = [index for index, block in enumerate(blocks(parameters)) if frozen >= {p.name for p in block}]
        assert len(frozen) == sum(len(blocks(parameters)[index]) for index in whole)
        found.add(tuple(whole))
    assert found == set(combinations(range(4), 2))


@pytest.mark.parametrize("name", ["llama", "bert", "distilbert", "roberta", "gpt-neox"])
def test_bottom_keeps_the_lowest_blocks_and_the_embeddings(name: str) -> None:
    selection = drawn(table(name, 4), level="bottom")
    below = [parameter.name for block in blocks(table(name, 4))[:2] for parameter in block]
    outer = [parameter.name for parameter in embeddings(table(name, 4))]
    assert set(selection.frozen) == {*below, *outer}
    assert not selection.detach_embeddings
    assert realised(table(name, 4), selection) == 0.5


@pytest.mark.parametrize("name", ["llama-tied", "gpt2", "gemma"])
def test_a_matrix_that_is_the_head_too_is_never_named_as_frozen(name: str) -> None:
    selection = drawn(table(name, 4), level="bottom")
    (tied,) = (parameter for parameter in table(name, 4) if len(parameter.names) > 1)
    assert selection.detach_embeddings
    assert not set(tied.names) & set(selection.frozen)
    assert ("transformer.wpe.weight" in selection.frozen) == (name == "gpt2")


@pytest.mark.parametrize("level", ["layer", "bottom"])
def test_half_of_a_single_layer_is_refused(level: str) -> None:
    with pytest.raises(BadPlan, match="choose level category"):
        drawn(table("llama", 1), level=level)


REFUSALS = {
    "gpt-neox": r"layers\.0\.attention\.query_key_value\.weight holds query, key and value head by head",
    "mixtral": r"does not know what model\.layers\.0\.mlp\.gate\.weight does",
    "t5": r"decoder\.block\.0\.\S+ belongs to a second stack",
}


@pytest.mark.parametrize("name", sorted(REFUSALS))
def test_a_shape_that_cannot_be_halved_is_refused_by_its_tensor(name: str) -> None:
    with pytest.raises(BadPlan, match=REFUSALS[name]):
        drawn(table(name))


def changed(name: str, **changes: Any) -> tuple[Parameter, ...]:
    """A Phi-3 table in which one tensor is another."""
    made = [p.model_copy(update=changes) if p.name == f"model.layers.0.{name}.weight" else p for p in table("phi3")]
    return tuple(made)


def test_fused_widths_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadPlan, match=r"qkv_proj\.weight of width 33 cannot be cut"):
        drawn(changed("self_attn.qkv_proj", shape=(33, 16)))
    with pytest.raises(BadPlan, match=r"gate_up_proj\.weight of width 47 cannot be cut"):
        drawn(changed("mlp.gate_up_proj", shape=(47, 16)))


def test_blocks_that_lack_a_matrix_or_have_it_twice_are_refused() -> None:
    without = tuple(parameter for parameter in table("llama") if "layers.0.self_attn.v_proj" not in parameter.name)
    with pytest.raises(BadPlan, match=r"block of model\.layers\.0\S+ lacks.*it has q, k, o"):
        drawn(without)
    twice = Parameter(names=("model.layers.1.crossattention.q_proj.weight",), shape=(16, 16), module="Linear")
    with pytest.raises(BadPlan, match=r"crossattention\.q_proj\.weight is a second q"):
        drawn((*table("llama"), twice))
    with pytest.raises(BadPlan, match="there are none"):
        drawn(table("llama")[:1])


@pytest.mark.parametrize("name", [*MULTI_HEAD, *GROUPED, "gpt-neox"])
def test_with_adapters_half_of_those_of_each_category_stay(name: str) -> None:
    read = adapted_layers(table(name, 4), LORA)
    selection = drawn(table(name, 4), lora=LORA)
    assert selection.lora == LORA
    assert selection.slices == {}
    assert all(count(layer.attention, selection) == len(layer.attention) // 2 for layer in read)
    both = sum(count(layer.feed_forward, selection) for layer in read)
    assert both == sum(len(layer.feed_forward) for layer in read) / 2
    assert not any(layer.norms for layer in read)


def test_only_modules_that_carry_an_adapter_are_drawn_from() -> None:
    some = LoraSettings(r=2, target_modules=("q_proj", "v_proj", "mlp.down_proj"))
    selection = drawn(table("llama-gqa", 4), lora=some)
    modules = [name.split(".")[-2] for name in selection.frozen]
    assert len([name for name in modules if name in {"q_proj", "v_proj"}]) == 4
    assert modules.count("down_proj") == 2
    assert len(modules) == 6


def test_bottom_with_adapters_names_the_adapted_modules_alone() -> None:
    selection = drawn(table("llama-tied", 4), level="bottom", lora=LORA)
    assert {name.split(".")[2] for name in selection.frozen} == {"0", "1"}
    assert len(selection.frozen) == 14
    assert not selection.detach_embeddings
    assert realised(table("llama-tied", 4), selection) == 0.5


def test_adapters_on_nothing_have_no_share() -> None:
    nowhere = LoraSettings(r=2, target_modules=("elsewhere",))
    with pytest.raises(BadPlan, match="target_modules"):
        realised(table("llama"), drawn(table("llama"), lora=nowhere))


def test_new_bytes_are_bounded_by_the_tensors_that_move() -> None:
    parameters = table("llama", 2)
    embeddings_and_head, norm, layer = 2 * 32 * 16, 16, 4 * 256 + 3 * 384 + 2 * 16
    total = embeddings_and_head + norm + 2 * layer
    assert new_share(parameters, drawn(parameters)) == (embeddings_and_head + norm + layer) / total


def test_what_stays_of_a_fused_matrix_is_not_new() -> None:
    parameters = table("gpt2")
    fused = drawn(parameters)
    inside = sum(one.numel for one in parameters if ".h." in one.name)
    total = sum(one.numel for one in parameters)
    assert fused.slices
    assert new_share(parameters, fused) == pytest.approx(1 - inside / total * (1 - realised(parameters, fused)))


def test_the_bound_of_new_bytes_leaves_room_for_small_files_and_is_of_full_models() -> None:
    parameters = table("llama", 2)
    whole = drawn(parameters)
    assert new_bytes_bound(parameters, whole) == pytest.approx(new_share(parameters, whole) + 0.02)
    assert new_bytes_bound(parameters, drawn(parameters, lora=LORA)) is None


def test_new_bytes_of_adapters_are_few_beside_the_base() -> None:
    parameters = table("llama", 2)
    each = 2 * (4 * 32 + 3 * 40)
    total = sum(parameter.numel for parameter in parameters) + 2 * each
    assert new_share(parameters, drawn(parameters, lora=LORA)) == each / total


def test_a_pairing_that_would_be_ignored_is_refused() -> None:
    with pytest.raises(ValidationError, match="pairing is used at level category only"):
        HalfSettings(level="layer", pairing="uniform")
