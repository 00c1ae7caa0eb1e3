"""Half fine-tuning: draws the half of the parameter matrices that stays as it is in a stage (METHODS 2).

Hui et al. 2024, arXiv 2404.18466. A draw depends on seed and stage alone and stands by value in the plan, so that a
resumed stage reads it; the next stage draws anew, and a matrix stays through k stages with probability 2^-k.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence

from strategies.contract import Parameter
from strategies.errors import BadPlan
from strategies.parts import FrozenSlice, HalfSelection
from strategies.selection.roles import (
    Layer,
    Piece,
    Unit,
    adapted,
    adapted_layers,
    blocks,
    embeddings,
    is_tied,
    layers,
)
from strategies.settings import LoraSettings
from strategies.settings.selection import HalfSettings, Pairing

SMALL_FILES = 0.02
"""Share of a version's bytes that its configuration, tokenizer and the like may take."""


def choose(
    table: Sequence[Parameter], *, settings: HalfSettings, seed: int, stage: int, lora: LoraSettings | None
) -> HalfSelection:
    """Which tensors of ``table``, and which slices of fused ones, stay in stage ``stage`` (1-based).

    Embeddings, positions, final norm and head always move, except that level bottom keeps the embeddings too. With
    ``lora`` the names are weights of adapted modules, and what stays are their adapters (METHODS 2.5.8).
    Raises BadPlan if the model's blocks cannot be read; the message names the tensor.
    """
    rng = random.Random(f"half {seed} {stage}")  # noqa: S311 - a draw that anybody may repeat
    detach = False
    if settings.level in {"category", "model"}:
        read = layers(table) if lora is None else adapted_layers(table, lora)
        drawn = _category(rng, read, settings.pairing) if settings.level == "category" else _model(rng, read)
        pieces = [piece for unit in drawn for piece in unit.pieces]
    else:
        kept = _whole_blocks(rng, table, bottom=settings.level == "bottom", lora=lora)
        below = embeddings(table) if settings.level == "bottom" and lora is None else ()
        detach = any(map(is_tied, below))
        kept += [parameter for parameter in below if not is_tied(parameter)]
        pieces = [Piece(name=parameter.name, numel=parameter.numel, matrix=True) for parameter in kept]
    frozen, slices = _by_value(table, pieces)
    return HalfSelection(level=settings.level, frozen=frozen, slices=slices, detach_embeddings=detach, lora=lora)


def realised(table: Sequence[Parameter], selection: HalfSelection) -> float:
    """Share of the blocks' numbers that move, without embeddings, final norm and head; of adapters with ``lora``.

    Category level: 1/2 within 1/(6L) for L layers where attention is halved evenly (METHODS 2.5.4, 2.6).
    """
    inside = [parameter for block in blocks(table) for parameter in block]
    lora = selection.lora
    if lora is not None:
        sizes = {parameter.name: sum(parameter.shape) for parameter in adapted(inside, lora)}
    else:
        sizes = {parameter.name: parameter.numel for parameter in inside}
    total = sum(sizes.values())
    if not total:
        raise BadPlan("no module of the blocks carries an adapter; check lora.target_modules")
    kept = sum(sizes.get(name, 0) for name in selection.frozen)
    return (total - kept - sum(_kept(parameter, selection) for parameter in inside)) / total


def new_share(table: Sequence[Parameter], selection: HalfSelection) -> float:
    """At most this share of a version's bytes is new; the rest is stored already.

    (Embeddings, head, final norm and the part of the blocks that moves) / all.
    With ``lora``: adapters in blocks that move / (base model and adapters), a classifier's head not counted.
    """
    frozen = set(selection.frozen)
    total = sum(parameter.numel for parameter in table)
    if selection.lora is None:
        moving = [parameter for parameter in table if parameter.name not in frozen]
        return sum(parameter.numel - _kept(parameter, selection) for parameter in moving) / total
    targets = [parameter for block in blocks(table) for parameter in adapted(block, selection.lora)]
    sizes = {parameter.name: selection.lora.r * sum(parameter.shape) for parameter in targets}
    new = sum(size for name, size in sizes.items() if name not in frozen)
    return new / (total + sum(sizes.values()))


def new_bytes_bound(table: Sequence[Parameter], selection: HalfSelection) -> float | None:
    """At most this share of a full model's bytes is new in the store: :func:`new_share` and 0.02 for its small files.

    None with ``lora``, whose first stage writes every adapter anew.
    """
    return None if selection.lora is not None else min(1.0, new_share(table, selection) + SMALL_FILES)


def _category(rng: random.Random, read: Sequence[Layer], pairing: Pairing) -> list[Unit]:
    """Half of each category in each layer; an odd one of a layer stays in a random half of the layers (METHODS 2.2)."""
    heavy = set(rng.sample(range(len(read)), len(read) // 2))
    drawn: list[Unit] = []
    for index, layer in enumerate(read):
        more = index in heavy
        drawn += _attention(rng, layer.attention, pairing, heavy=more)
        drawn += rng.sample(layer.feed_forward, _half(layer.feed_forward, heavy=more))
        drawn += rng.sample(layer.norms, _half(layer.norms, heavy=more))
    return drawn


def _half(units: Sequence[Unit], *, heavy: bool) -> int:
    return (len(units) + heavy) // 2


def _attention(rng: random.Random, units: Sequence[Unit], pairing: Pairing, *, heavy: bool) -> Sequence[Unit]:
    """Two of q, k, v, o by ``pairing`` (METHODS 2.5.3); half of what there is where adapters lack some of the four."""
    if len(units) != 4:
        return rng.sample(units, _half(units, heavy=heavy))
    query, key, value, output = units
    balanced = pairing == "gqa_balanced" or (pairing == "auto" and key.size < query.size)
    if balanced:
        return [rng.choice((query, output)), rng.choice((key, value))]
    if pairing == "param_aware":
        return rng.choice(_nearest_to_half(units))
    return rng.sample(units, 2)


def _nearest_to_half(units: Sequence[Unit]) -> list[tuple[Unit, ...]]:
    total = sum(unit.size for unit in units)
    pairs = [(abs(2 * sum(unit.size for unit in pair) - total), pair) for pair in itertools.combinations(units, 2)]
    least = min(off for off, _ in pairs)
    return [pair for off, pair in pairs if off == least]


def _model(rng: random.Random, read: Sequence[Layer]) -> list[Unit]:
    """Any half of all matrices, and any half of all norms, wherever they stand."""
    matrices = [unit for layer in read for unit in (*layer.attention, *layer.feed_forward)]
    norms = [unit for layer in read for unit in layer.norms]
    return rng.sample(matrices, len(matrices) // 2) + rng.sample(norms, len(norms) // 2)


def _whole_blocks(
    rng: random.Random, table: Sequence[Parameter], *, bottom: bool, lora: LoraSettings | None
) -> list[Parameter]:
    """Parameters of the lowest, or of a random, half of the blocks."""
    found = blocks(table)
    if len(found) < 2:
        raise BadPlan("half of one transformer block is none; choose level category")
    count = len(found) // 2
    chosen = range(count) if bottom else sorted(rng.sample(range(len(found)), count))
    inside = [found[index] for index in chosen]
    return [parameter for block in inside for parameter in (block if lora is None else adapted(block, lora))]


def _by_value(
    table: Sequence[Parameter], pieces: Iterable[Piece]
) -> tuple[tuple[str, ...], dict[str, tuple[FrozenSlice, ...]]]:
    """Names and slices in module order; neighbouring slices are joined, and what stays in all its slices is whole."""
    whole: set[str] = set()
    parts: dict[str, list[FrozenSlice]] = {}
    for piece in pieces:
        if piece.part is None:
            whole.add(piece.name)
        else:
            parts.setdefault(piece.name, []).append(piece.part)
    slices: dict[str, tuple[FrozenSlice, ...]] = {}
    for parameter in table:
        joined = _joined(parts.get(parameter.name, ()))
        if joined and joined[0].stop - joined[0].start == parameter.shape[joined[0].dim]:
            whole.add(parameter.name)
        elif joined:
            slices[parameter.name] = joined
    return tuple(parameter.name for parameter in table if parameter.name in whole), slices


def _joined(parts: Iterable[FrozenSlice]) -> tuple[FrozenSlice, ...]:
    made: list[FrozenSlice] = []
    for part in sorted(parts, key=lambda part: part.start):
        touches = made and made[-1].stop == part.start
        start = made.pop().start if touches else part.start
        made.append(FrozenSlice(dim=part.dim, start=start, stop=part.stop))
    return tuple(made)


def _kept(parameter: Parameter, selection: HalfSelection) -> int:
    """Numbers of a fused tensor that stay."""
    parts = selection.slices.get(parameter.name, ())
    return sum(parameter.numel // parameter.shape[part.dim] * (part.stop - part.start) for part in parts)
