"""What is merged: a base and its parents, checked to be models of one kind before anything is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from strategies.contract import ModelFiles
from strategies.errors import Diverged, Refused
from strategies.inference.load import HEADS, load_tokenizer
from strategies.merging.architecture import unread
from strategies.merging.blocks import block_of
from strategies.merging.fisher import Importance
from strategies.merging.models import Grown, Model, adapter_of, folder_of
from strategies.settings import Task


@dataclass(frozen=True, kw_only=True)
class Member:
    """One parent. ``fisher`` is its Fisher information, where a method needs it."""

    role: str
    model: Model
    weight: float = 1.0
    fisher: Importance | None = None


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """A base and its parents. ``free`` are head tensors that only the parents have alike: they are averaged."""

    base: Model
    members: tuple[Member, ...]
    names: tuple[str, ...]
    """All tensors of the result; those that are no floating-point numbers are taken from the base as they are."""
    numbers: tuple[str, ...]
    """The floating-point tensors that are merged, in the order that the flat vector has."""
    free: frozenset[str]

    @property
    def shares(self) -> tuple[float, ...]:
        """The parents' weights, adding up to 1."""
        total = sum(member.weight for member in self.members)
        return tuple(member.weight / total for member in self.members)


def gather(base: Model, members: Sequence[Member], *, task: Task, copy_lone: bool = False) -> Inputs:
    """The inputs of a merge. ``copy_lone``: a head tensor that only one parent has is allowed, and copied.

    What only some have and the architecture does not read is left out.

    Raises:
        Refused: architectures, tensor names, shapes or classes differ; the message names the first tensor that does.
            Classes may be more in some: a row that not all have is the mean of those that are there.
    """
    for member in members:
        _same_kind(member.model, base, member.role)
    members = _grown(members)
    first = members[0]
    aside = _left_aside(base, members, task)
    names = set(first.model.names) - aside
    for member in members[1:]:
        names = _joined(names, first, member, set(member.model.names) - aside, copy_lone=copy_lone)
    free = frozenset(name for name in names if _is_free(name, members, base))
    numbers = sorted(name for name in names if _owner(name, members, base).dtype(name).is_floating_point)
    return Inputs(base=base, members=tuple(members), names=tuple(sorted(names)), numbers=tuple(numbers), free=free)


def holders(name: str, members: Sequence[Member]) -> list[Member]:
    """The parents that have a tensor."""
    return [member for member in members if member.model.has(name)]


def check_finite(inputs: Inputs, name: str, *merged: Tensor) -> None:
    """Check what was made of the models' tensors of one name.

    Raises:
        Refused: it is not finite, for a model's tensor is not; the message names both.
        Diverged: it is not, though all of those are.
    """
    if all(torch.isfinite(tensor).all() for tensor in merged):
        return
    for role, model in [("the base", inputs.base), *((member.role, member.model) for member in inputs.members)]:
        if model.has(name) and not torch.isfinite(model.tensor(name)).all():
            raise Refused(f"tensor {name} is not finite in {role}; a model that diverged cannot be merged")
    raise Diverged(f"merged tensor {name} is not finite; nothing is published: merge with a smaller lam")


def _owner(name: str, members: Sequence[Member], base: Model) -> Model:
    return base if base.has(name) else holders(name, members)[0].model


def _same_kind(model: Model, base: Model, role: str) -> None:
    kinds = [one.config.get("model_type") for one in (model, base)]
    if kinds[0] != kinds[1]:
        raise Refused(f"{role} is a {kinds[0]} model and its base a {kinds[1]} one; merge models of one architecture")


def _grown(members: Sequence[Member]) -> list[Member]:
    """The parents as if each knew all classes."""
    models = [member.model for member in members if not isinstance(member.model, Grown)]
    most = max((model.labels for model in models), key=len, default=())
    return [
        member
        if isinstance(member.model, Grown) or member.model.labels == most
        else replace(member, model=Grown(member.model, models))
        for member in members
    ]


def _left_aside(base: Model, members: Sequence[Member], task: Task) -> set[str]:
    """Tensors that not all models have, and that loading leaves aside in those that do. Heads are never among them."""
    models = [member.model for member in members]
    aside: set[str] = set()
    read: set[str] = set()
    for model in models:
        lone = {name for name in model.names if not all(other.has(name) for other in (base, *models))}
        lone = {name for name in lone if not _is_head(name)}
        found = unread(folder_of(model), lone, task) if lone else set()
        aside, read = aside | found, read | (lone - found)
    return aside - read


def _joined(names: set[str], first: Member, member: Member, own: set[str], *, copy_lone: bool) -> set[str]:
    lone = {name for name in names if not member.model.has(name)}
    more = {name for name in own if not first.model.has(name)}
    for name in sorted(lone | more):
        if not (copy_lone and _is_head(name)):
            without = member if name in lone else first
            raise Refused(f"{without.role} has no tensor {name}; merge models of one architecture")
    for name in sorted(names - lone):
        ours, theirs = member.model.shape(name), first.model.shape(name)
        if ours != theirs:
            raise Refused(
                f"tensor {name} is {list(ours)} in {member.role} and {list(theirs)} in {first.role}; "
                "merge models of one shape and vocabulary"
            )
    return names | more


def _is_free(name: str, members: Sequence[Member], base: Model) -> bool:
    model = holders(name, members)[0].model
    shape = model.shape(name)
    # A base that names no classes has a head that was never trained: there is no change to count from it.
    if _is_head(name) and (not base.has(name) or base.shape(name) != shape or (model.labels and not base.labels)):
        return True
    if base.has(name) and base.shape(name) == shape:
        return False
    if base.has(name):
        raise Refused(
            f"tensor {name} is {list(shape)} in {members[0].role} and {list(base.shape(name))} in the base; "
            "merge models of one shape and vocabulary"
        )
    raise Refused(f"the base has no tensor {name}; merge models of one architecture")


def _is_head(name: str) -> bool:
    """Outside the blocks, in a module that is called as heads are."""
    return block_of(name) is None and not {"pre_classifier", *HEADS}.isdisjoint(name.split("."))


def same_tokenizer(base: ModelFiles, others: Sequence[tuple[str, ModelFiles]]) -> None:
    """Refuse models that cut text into other tokens than the base; how they pad and truncate does not matter."""
    wanted: Any = None
    for role, files in others:
        if files.path == base.path or _same_file(Path(files.path), Path(base.path)):
            continue
        wanted = wanted or _tokens(base)
        found = _tokens(files)
        if found != wanted:
            raise Refused(f"the tokenizer of {role} differs from the base's ({_difference(found, wanted)})")


def _same_file(ours: Path, theirs: Path) -> bool:
    files = [folder / "tokenizer.json" for folder in (ours, theirs)]
    return all(file.exists() for file in files) and files[0].read_bytes() == files[1].read_bytes()


def _tokens(files: ModelFiles) -> dict[str, Any]:
    tokenizer = load_tokenizer(files)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = json.loads(backend.to_str()) if backend is not None else {}
    kept = {name: parts.get(name) for name in ("model", "normalizer", "pre_tokenizer", "added_tokens")}
    return {"vocabulary": tokenizer.get_vocab(), **kept}


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    ours, theirs = found["vocabulary"], wanted["vocabulary"]
    token = next((token for token in sorted({*ours, *theirs}) if ours.get(token) != theirs.get(token)), None)
    return f"token {token!r}" if token is not None else next(name for name in found if found[name] != wanted[name])


def all_adapters(base: Model, members: Sequence[Member]) -> bool:
    """Whether the parents are adapters on one folder, the base's."""
    folder = folder_of(base).path.resolve()
    return all(adapter_of(one.model) and folder_of(one.model).path.resolve() == folder for one in members)
