"""Each merge as a maker of tensors: given a name it reads that tensor of every parent and returns the merged one.

What has to be known of the whole model first (TIES' borders and majority sign, PCB's quantiles, norms) is found by
passes of their own when a maker is made. At most the parents' tensors of one name, and a few more of that shape, are
in memory.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from strategies.errors import BadPlan, Refused
from strategies.merging.arithmetic import (
    added,
    blended,
    clipped,
    competing_score,
    disjoint_mean,
    dropped,
    elected_signs,
    fisher_mean,
    weighted_sum,
)
from strategies.merging.blocks import block_of, block_scales, draw_half
from strategies.merging.inputs import Inputs, Member, all_adapters, check_finite, holders
from strategies.merging.models import adapter_of, change_between, inner_of
from strategies.merging.ranks import find_places
from strategies.merging.trimming import Trim, find_trim
from strategies.settings.merging import (
    DareMerge,
    FisherMerge,
    GreedySoupMerge,
    HalfResetMerge,
    InterpolateMerge,
    LinesMerge,
    Merge,
    PcbMerge,
    RepairMerge,
    SoupMerge,
    TaskArithmeticMerge,
    TiesMerge,
    combining,
    wrong_weights,
)


class Maker(Protocol):
    """A merge of given inputs."""

    def tensor(self, name: str) -> Tensor:
        """The merged tensor, float32."""
        ...

    def change(self, name: str) -> Tensor:
        """The merged tensor's difference from the base, float32."""
        ...


class Linear:
    """Any affine combination: ``factors`` gives each parent's factor for a name; the base has what is missing to 1."""

    def __init__(self, inputs: Inputs, factors: Callable[[str], tuple[float, ...]], *, with_base: bool = True) -> None:
        self.inputs = inputs
        self.factors = factors
        self.with_base = with_base

    def tensor(self, name: str) -> Tensor:
        members = self.inputs.members
        if name in self.inputs.free:
            return _average(self.inputs, name)
        terms = [(factor, member.model) for factor, member in zip(self.factors(name), members, strict=True) if factor]
        pivot = self.inputs.base if self.with_base else terms.pop(0)[1]
        return blended(pivot.tensor(name), ((factor, model.tensor(name)) for factor, model in terms))

    def change(self, name: str) -> Tensor:
        base = self.inputs.base
        pairs = zip(self.factors(name), self.inputs.members, strict=True)
        return weighted_sum((factor, change_between(member.model, base, name)) for factor, member in pairs)


class Added(ABC):
    """A merge of changes that is added to the base."""

    inputs: Inputs

    def tensor(self, name: str) -> Tensor:
        if name in self.inputs.free:
            return _average(self.inputs, name)
        return added(self.inputs.base.tensor(name), self.change(name))

    @abstractmethod
    def change(self, name: str) -> Tensor:
        """The merged change, float32."""


class Ties(Added):
    """TIES (Yadav et al. 2023): trim, elect, disjoint mean, times ``lam``; ``changes`` are the task vectors.

    The trim counts numbers of the whole model; of adapters on one folder those of the weights that are adapted.
    """

    def __init__(self, inputs: Inputs, changes: Sequence[Callable[[str], Tensor]], *, density: float, lam: float):
        self.inputs = inputs
        self.lam = lam
        self._changes = changes
        self._names = _counted(inputs)
        self._trims: list[Trim] = [find_trim(self._names, change, density) for change in changes]
        balance = sum(int(torch.sign(sum_of(self._trimmed(name))).sum()) for name in self._names)
        # The paper leaves a whole model that cancels out undecided; + is as good as any, and always the same.
        self.majority = 1 if balance >= 0 else -1

    def change(self, name: str) -> Tensor:
        trimmed = self._trimmed(name)
        return disjoint_mean(trimmed, elected_signs(sum_of(trimmed), self.majority)).mul_(self.lam)

    def _trimmed(self, name: str) -> list[Tensor]:
        return [trim(name, change(name)) for trim, change in zip(self._trims, self._changes, strict=True)]


class Averaged(Added):
    """DARE, then mean: the mean of the changes, times ``lam``."""

    def __init__(self, inputs: Inputs, changes: Sequence[Callable[[str], Tensor]], *, lam: float) -> None:
        self.inputs = inputs
        self._factor = lam / len(changes)
        self._changes = changes

    def change(self, name: str) -> Tensor:
        return weighted_sum((self._factor, change(name)) for change in self._changes)


class Competition(Added):
    """PCB (Du et al. 2024, METHODS 7.2) as its code has it: scores, their best share, a mean weighted by these.

    The number at the border of the share gets weight 0. A parent whose scores are all alike gets none at all.
    """

    def __init__(self, inputs: Inputs, settings: PcbMerge) -> None:
        self.inputs = inputs
        self._settings = settings
        self._changes = _changes(inputs)
        names, count = _counted(inputs), len(self._changes)
        clip, ratio = Fraction(str(settings.clip)), Fraction(str(settings.ratio))
        sizes = find_places(
            names,
            lambda name: (change(name).abs() for change in self._changes),
            lambda size: (size - math.floor(clip * size), min(size, 1 + math.ceil(clip * size))),
            count=count,
        )
        self._clips = [(low.value, high.value) for low, high in sizes]
        scores = find_places(
            names,
            lambda name: (score for _, score in self._scored(name)),
            lambda size: (math.ceil(ratio * size), 1),
            count=count,
        )
        self._borders = [(border.value, best.value) for border, best in scores]

    def change(self, name: str) -> Tensor:
        weighted = torch.zeros(self.inputs.base.shape(name))
        weights = torch.zeros_like(weighted)
        for (change, score), clip, (border, best) in zip(self._scored(name), self._clips, self._borders, strict=True):
            weight = score.clamp_(min=border).sub_(border).div_((best - border) or 1.0)
            weighted.addcmul_(weight, clipped(change, *clip))
            weights.add_(weight)
        return weighted.div_(weights.clamp_(min=1e-12)).mul_(self._settings.lam)

    def _scored(self, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Each parent's change and its scores."""
        changes = [change(name) for change in self._changes]
        total = sum_of(changes)
        for change, (low, high) in zip(changes, self._clips, strict=True):
            yield change, competing_score(change, total, low=low, high=high, parents=len(changes))


class Fisher:
    """Fisher merging (Matena and Raffel 2022). What is no trained parameter, or at the floor everywhere, is averaged.

    Each parent's information is normalised first and then raised to the floor, so that a number that no parent knows
    anything about gets the plain mean, whatever the parents' norms are.
    """

    def __init__(self, inputs: Inputs, settings: FisherMerge) -> None:
        self.inputs = inputs
        self.floor = settings.floor
        self._scales = [_scale(member, normalise=settings.normalise) for member in inputs.members]

    def tensor(self, name: str) -> Tensor:
        having = [
            (member, scale)
            for member, scale in zip(self.inputs.members, self._scales, strict=True)
            if member.model.has(name)
        ]
        return fisher_mean([self._term(name, member, scale) for member, scale in having])

    def change(self, name: str) -> Tensor:
        return self.tensor(name) - self.inputs.base.tensor(name)

    def _term(self, name: str, member: Member, scale: float) -> tuple[Tensor, Tensor]:
        tensor = member.model.tensor(name)
        assert member.fisher is not None
        own = inner_of(member.model).shape(name)
        # Of rows that it only reads of others it knows nothing.
        known = torch.zeros_like(tensor)
        known[tuple(map(slice, own))] = member.fisher.tensor(name, own)
        return tensor, known.mul_(scale).clamp_(min=self.floor).mul_(member.weight)


class Lines(Added):
    """LiNeS (Wang et al. 2025): the change of ``inner``, scaled block by block."""

    def __init__(self, inputs: Inputs, inner: Maker, scales: dict[str, float]) -> None:
        self.inputs = inputs
        self.inner = inner
        self.scales = scales

    def change(self, name: str) -> Tensor:
        return self.inner.change(name) * self.scales[name]


def maker_for(method: Merge, inputs: Inputs) -> Maker:
    """The maker of a merge's tensors; the method is :func:`settled`.

    Raises:
        BadPlan: the method does not fit the number of parents, their weights or what they bring.
        Refused: the method has no meaning for a model of this architecture, or a model's numbers are not finite.
    """
    _check(method, inputs)
    if isinstance(method, FisherMerge):
        _check_fisher(inputs)
    made: Maker
    match method:
        case TiesMerge():
            made = Ties(inputs, _changes(inputs), density=method.density, lam=method.lam)
        case DareMerge():
            made = _dare(method, inputs)
        case PcbMerge():
            made = Competition(inputs, method)
        case FisherMerge():
            made = Fisher(inputs, method)
        case LinesMerge():
            made = _lines(method, inputs)
        case SoupMerge() | TaskArithmeticMerge() | InterpolateMerge() | HalfResetMerge():
            made = _linear(method, inputs)
        case GreedySoupMerge() | RepairMerge():
            raise BadPlan(f"{method.kind} tries several merges; it is carried out by the merge job")
    return made


def settled(method: Merge, inputs: Inputs) -> Merge:
    """The method with what it draws by lot standing in it by value.

    Raises:
        Refused: there is nothing to draw from.
    """
    if isinstance(method, LinesMerge) and method.after is not None:
        return method.model_copy(update={"after": settled(method.after, inputs)})
    if not isinstance(method, HalfResetMerge) or method.names is not None:
        return method
    return method.model_copy(update={"names": drawn_half(inputs, seed=method.seed)})


def drawn_half(inputs: Inputs, *, seed: int, number: int = 0) -> tuple[str, ...]:
    """Half of the blocks' matrices that can change, of one ``seed`` another half for each ``number``.

    Raises:
        Refused: there are no two matrices to draw one of.
    """
    matrices = [name for name in _counted(inputs) if block_of(name) and len(inputs.base.shape(name)) == 2]
    if len(matrices) < 2:
        raise Refused("fewer than two matrices stand in blocks, so there is no half to draw; name the tensors")
    return draw_half(matrices, seed=f"{seed}/half-reset/{number}")


def _check_fisher(inputs: Inputs) -> None:
    for member in inputs.members:
        if member.fisher is None:
            raise BadPlan(f"fisher needs the Fisher information of {member.role}, or rows to estimate it from")
        if not any(member.fisher.has(name) for name in inputs.numbers):
            raise BadPlan(f"the Fisher information of {member.role} names none of its tensors; estimate it again")


def _linear(method: SoupMerge | TaskArithmeticMerge | InterpolateMerge | HalfResetMerge, inputs: Inputs) -> Linear:
    if isinstance(method, HalfResetMerge):
        assert method.names is not None, "what is drawn is settled before"
        back = frozenset(method.names)
        return Linear(inputs, lambda name: (0.0 if name in back else 1.0,))
    if isinstance(method, SoupMerge):
        shares = inputs.shares
        return Linear(inputs, lambda _: shares, with_base=False)
    if isinstance(method, InterpolateMerge):
        return Linear(inputs, lambda _: (1 - method.share,))
    factors = tuple(method.lam * member.weight for member in inputs.members)
    return Linear(inputs, lambda _: factors)


def _check(method: Merge, inputs: Inputs) -> None:
    inner = combining(method)
    kind = inner.kind
    if inner.goes_back and len(inputs.members) != 1:
        raise BadPlan(f"{kind} goes back from one candidate; it was given {len(inputs.members)}")
    check_weights(method, inputs)
    named = (inner.names or ()) if isinstance(inner, HalfResetMerge) else ()
    unknown = sorted(set(named) - set(inputs.numbers))
    if unknown:
        raise BadPlan(f"half-reset names {unknown[0]}, which the model does not have; names are those of its tensors")


def check_weights(method: Merge, inputs: Inputs) -> None:
    """Check that the method takes the parents' weights, and that a tensor which the base lacks has a mean by them.

    Raises:
        BadPlan: it does not, or has none.
    """
    weights = [member.weight for member in inputs.members]
    wrong = wrong_weights(method, weights if any(weight != 1 for weight in weights) else ())
    if wrong is not None:
        raise BadPlan(wrong)
    for name in sorted(inputs.free):
        if sum(member.weight for member in holders(name, inputs.members)) <= 0:
            raise BadPlan(f"the base has no {name}, so it is averaged; choose weights that add up to more than 0")


def _dare(method: DareMerge, inputs: Inputs) -> Maker:
    changes = [
        partial(_dropped, method, member.role, change)
        for member, change in zip(inputs.members, _changes(inputs), strict=True)
    ]
    if method.then == "ties":
        return Ties(inputs, changes, density=method.density, lam=method.lam)
    return Averaged(inputs, changes, lam=method.lam)


def _dropped(method: DareMerge, role: str, change: Callable[[str], Tensor], name: str) -> Tensor:
    """A change under the mask of its parent and tensor: the same in every pass."""
    return dropped(change(name), method.drop, key=f"{method.seed}/{role}/{name}")


def _lines(method: LinesMerge, inputs: Inputs) -> Maker:
    names = _shared(inputs)
    if method.after is None:
        alpha = method.alpha or 0.0
        beta = 1 - alpha if method.beta is None else method.beta
        scales = block_scales(names, alpha=alpha, beta=beta)
        return Linear(inputs, lambda name: (scales[name],))
    inner = maker_for(method.after, inputs)
    alpha = _norm_ratio(inputs, inner, names) if method.alpha is None else method.alpha
    return Lines(inputs, inner, block_scales(names, alpha=alpha, beta=method.beta or 0.0))


def _norm_ratio(inputs: Inputs, inner: Maker, names: Sequence[str]) -> float:
    """LiNeS' alpha after a merge: ``(|sum of the changes|_1 / |merged change|_1) / N``; 1 / N if nothing changed."""
    changes = _changes(inputs)
    summed = sum(float(sum_of([change(name) for change in changes]).abs().double().sum()) for name in names)
    merged = sum(float(inner.change(name).abs().double().sum()) for name in names)
    return (summed / merged if merged > 0 else 1.0) / len(changes)


def _changes(inputs: Inputs) -> list[Callable[[str], Tensor]]:
    """Each parent's task vector, by name."""
    return [partial(_change, inputs, member) for member in inputs.members]


def _change(inputs: Inputs, member: Member, name: str) -> Tensor:
    change = change_between(member.model, inputs.base, name)
    check_finite(inputs, name, change)
    return change


def _shared(inputs: Inputs) -> tuple[str, ...]:
    return tuple(name for name in inputs.numbers if name not in inputs.free)


def _counted(inputs: Inputs) -> tuple[str, ...]:
    """Tensors whose numbers can change: of adapters on one folder those that any of them adapts or replaces."""
    names = _shared(inputs)
    if not all_adapters(inputs.base, inputs.members):
        return names
    adapters = [one for one in map(adapter_of, (inputs.base, *(member.model for member in inputs.members))) if one]
    return tuple(name for name in names if any(adapter.touches(name) for adapter in adapters))


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of tensors."""
    return weighted_sum((1.0, tensor) for tensor in tensors)


def _average(inputs: Inputs, name: str) -> Tensor:
    """A tensor that the base lacks: the parents' mean, by their weights."""
    having = holders(name, inputs.members)
    total = sum(member.weight for member in having)
    others = ((member.weight / total, member.model.tensor(name)) for member in having[1:])
    return blended(having[0].model.tensor(name), others)


def _scale(member: Member, *, normalise: bool) -> float:
    assert member.fisher is not None
    norm = member.fisher.norm() if normalise else 1.0
    return 1 / norm if norm > 0 else 1.0


def mean_change(inputs: Inputs, member: Member) -> float:
    """Mean size of a parent's changes; DARE is meant for at most about 0.002 (METHODS 7.1)."""
    names = _counted(inputs)
    sizes = [change_between(member.model, inputs.base, name).abs().double().sum() for name in names]
    count = sum(math.prod(inputs.base.shape(name)) for name in names)
    return float(torch.stack(sizes).sum() / count)
