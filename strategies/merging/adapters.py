"""Merge LoRA adapters of one folder into a LoRA adapter: in the space of B·A, cut back to a rank (METHODS 3.6).

Affine merges add up the products exactly, by stacking factors, before anything is cut; TIES and DARE act on single
numbers of the product, which then has no small factors and is cut by a full SVD.

peft has ``LoraModel.add_weighted_adapter`` (read in 0.21.2). Its ``linear``, ``ties``, ``dare_linear``, ``dare_ties``
and ``magnitude_prune`` merge the A's and the B's apart, each weighted by the root of weight times scaling, so that the
product has cross terms and is not the weighted sum of the products that the papers merge. ``cat`` stacks factors and is
that sum, at the sum of the ranks. The ``_svd`` kinds merge the products and cut the result, as here, without saying
what the cut lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from strategies.errors import Refused
from strategies.inference.export import TOKENIZER_FILES
from strategies.inference.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LABELS_FILE
from strategies.merging.inputs import Inputs, all_adapters, check_finite
from strategies.merging.low_rank import LowRank, factor_gap, relative_norm, stacked, truncated, truncated_dense
from strategies.merging.methods import Fisher, Linear, Maker
from strategies.merging.models import Adapted, adapter_of, spelled
from strategies.merging.writing import copy_files


@dataclass(frozen=True, kw_only=True)
class Gaps:
    """Relative Frobenius gaps over all modules: what the rank cut off, and what averaging A and B apart would miss."""

    rank: float
    factors: float | None

    def facts(self) -> dict[str, float | None]:
        """For the facts of a job."""
        return {"rank_gap": self.rank, "factor_gap": self.factors}


def write_adapter(folder: Path, *, inputs: Inputs, maker: Maker, tick: Callable[[], None]) -> Gaps:
    """Write the merged adapter as a PEFT folder, with settings, classes and tokenizer of the first parent that knows
    most classes.

    ``tick`` is called after each module and may raise.

    Raises:
        Refused: the parents are no adapters of one folder, or adapt different modules; or the merge needs full models;
            or a parent's numbers are not finite.
        Diverged: those of the merge are not.
    """
    adapters = adapters_of(inputs)
    if isinstance(maker, Fisher):
        raise Refused("Fisher information is of full models; merge into a model")
    first = max(adapters, key=lambda one: len(one.labels))
    alike = len({adapter.rank for adapter in adapters}) == 1
    tensors: dict[str, Tensor] = {}
    cuts, gaps = [], []
    for module in sorted(first.modules):
        if _is_unchanged(module, adapters, inputs):
            # Factoring them anew would change their bytes, and leave an A that waits for its B with nothing but zeros.
            found, lost, norm = first.stored(module), 0.0, first.factors(module).norm()
        else:
            merged, lost, norm = _merged_module(module, first, inputs, maker)
            found = first.as_stored(module, merged)
        check_finite(inputs, _canonical(f"{module}.weight", inputs), *found.values())
        tensors |= found
        tick()
        cuts.append((lost, norm))
        if alike:
            gaps.append(factor_gap([adapter.factors(module) for adapter in adapters]))
    for name, key in first.replaced.items():
        tensors[key] = maker.tensor(_canonical(name, inputs))
        check_finite(inputs, _canonical(name, inputs), tensors[key])
    _save(folder, tensors, first)
    return Gaps(rank=relative_norm(cuts), factors=relative_norm(gaps) if alike else None)


def adapters_of(inputs: Inputs) -> list[Adapted]:
    """The parents as adapters of the base's folder, which adapt the same modules."""
    if not all_adapters(inputs.base, inputs.members):
        raise Refused("only adapters on the base's own folder can be merged into an adapter; merge into a model")
    found = [one for one in (adapter_of(member.model) for member in inputs.members) if one is not None]
    base = adapter_of(inputs.base)
    for other in [*found[1:], *([base] if base else [])]:
        different = sorted(found[0].modules ^ other.modules)
        if different:
            raise Refused(f"{different[0]} is adapted by some of the models only; merge into a model")
    return found


def _is_unchanged(module: str, adapters: Sequence[Adapted], inputs: Inputs) -> bool:
    """Whether a module is the same in all parents, bit for bit, and in the base, so that no merge changes it."""
    base = adapter_of(inputs.base)
    first, *others = (adapter.factors(module) for adapter in (*adapters, *([base] if base else [])))
    alike = all(torch.equal(first.b, one.b) and torch.equal(first.a, one.a) for one in others)
    # A base without an adapter is the same where nothing is added to it.
    return alike and (base is not None or not first.b.any())


def _merged_module(module: str, first: Adapted, inputs: Inputs, maker: Maker) -> tuple[LowRank, float, float]:
    """The module's merged change, the norm of what the rank cut off, and the norm of the whole."""
    name = _canonical(f"{module}.weight", inputs)
    if isinstance(maker, Linear):
        whole = stacked(_terms(module, name, inputs, maker))
        # A decomposition of what is not finite fails without saying whose it was.
        check_finite(inputs, name, whole.a, whole.b)
        merged, lost = truncated(whole, first.rank)
        return merged, lost, whole.norm()
    change = maker.change(name)
    base = adapter_of(inputs.base)
    own = base.change(name) if base else None
    change = change if own is None else change + own
    check_finite(inputs, name, change)
    merged, lost = truncated_dense(change.T if first.transposed else change, first.rank)
    return merged, lost, float(torch.linalg.vector_norm(change))


def _terms(module: str, name: str, inputs: Inputs, maker: Linear) -> list[tuple[float, LowRank]]:
    factors = maker.factors(name)
    terms = [(factor, adapter.factors(module)) for factor, adapter in zip(factors, adapters_of(inputs), strict=True)]
    base = adapter_of(inputs.base) if maker.with_base else None
    return [*terms, (1 - sum(factors), base.factors(module))] if base else terms


def _canonical(name: str, inputs: Inputs) -> str:
    """A tensor as the folder calls it: scales and halves are by those names."""
    return spelled(name, inputs.names) or name


def _save(folder: Path, tensors: dict[str, Tensor], first: Adapted) -> None:
    folder.mkdir(parents=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, folder / ADAPTER_WEIGHTS, {"format": "pt"})
    copy_files(first.adapter, folder, (ADAPTER_CONFIG, LABELS_FILE, *TOKENIZER_FILES))
