"""Reads a parameter table: which tensors are transformer blocks', and what each does in its block.

What stands outside the blocks (embeddings, positions, final norm, head, pooler, classifier) has no role here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from strategies.contract import Parameter
from strategies.errors import BadPlan
from strategies.parts import FrozenSlice
from strategies.settings import LoraSettings

ATTENTION = ("q", "k", "v", "o")
FEED_FORWARD = (("gate", "up", "down"), ("up", "down"))
BLOCK = re.compile(r"^((?:.*?\.)?(?:layers|layer|h|blocks|block))\.(\d+)\.(.+)$")
"""A parameter's name in a block: the stack of blocks, the block's index, and the name within it."""
_PATTERNS = {
    "q": r"q_proj|q_lin|query|q_norm|q_layernorm",
    "k": r"k_proj|k_lin|key|k_norm|k_layernorm",
    "v": r"v_proj|v_lin|value",
    "qkv": r"qkv_proj|attn\.c_attn|Wqkv",
    # Query, key and value alternate head by head: how many heads there are, no shape tells.
    "interleaved": r"query_key_value",
    "o": r"o_proj|out_proj|out_lin|attention\.output\.dense|attn\.(?:c_proj|Wo)|(?:self_attn|self_attention|attention)"
    r"\.dense",
    "gate": r"gate_proj",
    "up": r"up_proj|c_fc|fc1|lin1|intermediate\.dense|dense_h_to_4h",
    "gate_up": r"gate_up_proj|Wi",
    "down": r"down_proj|mlp\.(?:c_proj|Wo)|fc2|lin2|output\.dense|dense_4h_to_h",
    "norm": r"\w*[Nn]orm\w*|ln_\d+",
}
_ROLES = {role: re.compile(rf"(?:.*\.)?(?:{pattern})") for role, pattern in _PATTERNS.items()}
_LINEAR = ("Linear", "Conv1D")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A tensor, or a part of a fused one; ``numel`` numbers of it."""

    name: str
    numel: int
    matrix: bool
    part: FrozenSlice | None = None


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What stays or moves together: a matrix with its bias and the norm of its output, or one of a layer's norms."""

    role: str
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """Numbers in its matrices."""
        return sum(piece.numel for piece in self.pieces if piece.matrix)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One transformer block: attention in the order q, k, v, o, feed-forward as gate, up, down, norms as they stand."""

    attention: tuple[Unit, ...]
    feed_forward: tuple[Unit, ...]
    norms: tuple[Unit, ...]


def blocks(table: Sequence[Parameter]) -> tuple[tuple[Parameter, ...], ...]:
    """Parameters of each transformer block, lowest first; raises BadPlan unless there is exactly one stack of them."""
    found: dict[int, list[Parameter]] = {}
    stacks: dict[str, str] = {}
    for parameter in table:
        match = BLOCK.match(parameter.name)
        if match:
            stacks.setdefault(match[1], parameter.name)
            found.setdefault(int(match[2]), []).append(parameter)
    if len(stacks) != 1:
        second = list(stacks.values())[1:2]
        what = f"{second[0]} belongs to a second stack of them" if second else "there are none"
        raise BadPlan(f"half fine-tuning needs one stack of transformer blocks: {what}; choose another strategy")
    return tuple(tuple(found[index]) for index in sorted(found))


def embeddings(table: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """What stands before the blocks: tokens, positions, and the norm or projection of their sum."""
    return tuple(parameter for parameter in table if BLOCK.match(parameter.name) is None and _embeds(parameter))


def is_tied(parameter: Parameter) -> bool:
    """Whether an embedding is the head's matrix too."""
    return len(parameter.names) > 1 and not all(map(_embeds_by_name, parameter.names))


def layers(table: Sequence[Parameter]) -> tuple[Layer, ...]:
    """The blocks with the role of each tensor; fused projections are cut into slices (METHODS 2.5.5).

    Raises BadPlan, naming the tensor, where a role is unknown, twice or missing, or where no shape tells the slices.
    """
    return tuple(_complete(_layer(_pieces(block)), block) for block in blocks(table))


def adapted_layers(table: Sequence[Parameter], lora: LoraSettings) -> tuple[Layer, ...]:
    """The blocks' modules that carry an adapter, with their roles; a fused one is whole, for it has one adapter."""
    return tuple(_layer(_adapters(block, lora)) for block in blocks(table))


def adapted(block: Sequence[Parameter], lora: LoraSettings) -> tuple[Parameter, ...]:
    """Weights in a block whose modules carry an adapter."""
    return tuple(parameter for parameter in block if _is_target(parameter, lora.target_modules))


def _is_target(parameter: Parameter, targets: Sequence[str]) -> bool:
    path, _, leaf = parameter.name.rpartition(".")
    if leaf != "weight" or parameter.module not in _LINEAR:
        return False
    return targets == "all-linear" or any(path == target or path.endswith(f".{target}") for target in targets)


def _embeds(parameter: Parameter) -> bool:
    return "Embedding" in parameter.module or any(map(_embeds_by_name, parameter.names))


def _embeds_by_name(name: str) -> bool:
    parts = name.split(".")
    return any("embed" in part or part in {"wte", "wpe", "project_in"} for part in parts) and "embed_out" not in parts


def _role(parameter: Parameter) -> str:
    match = BLOCK.match(parameter.name)
    path = match[3].rpartition(".")[0] if match else ""
    for role, pattern in _ROLES.items():
        if pattern.fullmatch(path):
            return role
    raise BadPlan(
        f"half fine-tuning does not know what {parameter.name} does; choose level layer or bottom, or another strategy"
    )


def _pieces(block: Sequence[Parameter]) -> Iterator[tuple[str, Piece]]:
    roles = [(_role(parameter), parameter) for parameter in block]
    output = [parameter for role, parameter in roles if role == "o" and len(parameter.shape) == 2]
    for role, parameter in roles:
        if role == "interleaved":
            raise BadPlan(
                f"{parameter.name} holds query, key and value head by head, and its shape does not tell the heads; "
                "choose level layer or bottom, or tuner lora"
            )
        if role == "qkv":
            yield from _cut(parameter, _attention_sizes(parameter, output))
        elif role == "gate_up":
            yield from _cut(parameter, _equal_sizes(parameter))
        else:
            yield role, Piece(name=parameter.name, numel=parameter.numel, matrix=len(parameter.shape) >= 2)


def _adapters(block: Sequence[Parameter], lora: LoraSettings) -> Iterator[tuple[str, Piece]]:
    for parameter in adapted(block, lora):
        # An adapter of rank r has r numbers for each input and each output.
        role = _role(parameter)
        fused = "qkv" if role == "interleaved" else role
        yield fused, Piece(name=parameter.name, numel=sum(parameter.shape), matrix=True)


def _width_at(parameter: Parameter) -> int:
    """The dimension of the outputs: matrices are (out, in), but (in, out) in a Conv1D."""
    return 1 if parameter.module == "Conv1D" and len(parameter.shape) == 2 else 0


def _attention_sizes(parameter: Parameter, output: Sequence[Parameter]) -> dict[str, int]:
    """Outputs of q, k, v: q is as wide as the output projection's input, k and v share the rest."""
    total = parameter.shape[_width_at(parameter)]
    query = output[0].shape[1 - _width_at(output[0])] if output else 0
    rest = total - query
    if not 0 < rest <= 2 * query or rest % 2:
        raise BadPlan(
            f"{parameter.name} of width {total} cannot be cut into query, key and value; choose level layer or bottom"
        )
    return {"q": query, "k": rest // 2, "v": rest // 2}


def _equal_sizes(parameter: Parameter) -> dict[str, int]:
    total = parameter.shape[_width_at(parameter)]
    if total % 2:
        raise BadPlan(f"{parameter.name} of width {total} cannot be cut in two; choose level layer or bottom")
    return {"gate": total // 2, "up": total // 2}


def _cut(parameter: Parameter, sizes: dict[str, int]) -> Iterator[tuple[str, Piece]]:
    dim, start = _width_at(parameter), 0
    each = parameter.numel // parameter.shape[dim]
    for role, size in sizes.items():
        part = FrozenSlice(dim=dim, start=start, stop=start + size)
        yield role, Piece(name=parameter.name, numel=each * size, matrix=len(parameter.shape) >= 2, part=part)
        start += size


def _layer(pieces: Iterator[tuple[str, Piece]]) -> Layer:
    units: dict[tuple[str, str], list[Piece]] = {}
    for role, piece in pieces:
        module = piece.name.rpartition(".")[0] if role == "norm" else ""
        held = units.setdefault((role, module), [])
        if piece.matrix and any(other.matrix for other in held):
            raise BadPlan(f"{piece.name} is a second {role} in its block; choose level layer or bottom")
        held.append(piece)
    made = [Unit(role=role, pieces=tuple(held)) for (role, _), held in units.items()]
    return Layer(
        attention=_ordered(made, ("qkv", *ATTENTION)),
        feed_forward=_ordered(made, ("gate_up", *FEED_FORWARD[0])),
        norms=tuple(unit for unit in made if unit.role == "norm"),
    )


def _ordered(units: Sequence[Unit], roles: Sequence[str]) -> tuple[Unit, ...]:
    return tuple(sorted((unit for unit in units if unit.role in roles), key=lambda unit: roles.index(unit.role)))


def _complete(layer: Layer, block: Sequence[Parameter]) -> Layer:
    attention, feed_forward = (
        [unit.role for unit in units if unit.size] for units in (layer.attention, layer.feed_forward)
    )
    if tuple(attention) != ATTENTION or tuple(feed_forward) not in FEED_FORWARD:
        has = ", ".join([*attention, *feed_forward]) or "none"
        raise BadPlan(
            f"the block of {block[0].name} lacks matrices that half fine-tuning chooses from (it has {has}); "
            "choose level layer or bottom, or another strategy"
        )
    return layer
