"""What a router of domains compares with: prototypes, their common covariance, usual gains and distances."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from strategies.errors import BadState, Refused
from strategies.inference.bank.domains import Prompts, look, prompt_losses, whitened
from strategies.inference.bank.files import file_digest
from strategies.inference.statistics import Moments, covariance_of, factor_of, is_diagonal
from strategies.settings.consolidation import LEAST_PROMPTS

FILE = "statistics.safetensors"
DIGEST = "statistics.json"
LEAST_SPREAD = 1e-3
"""Gains that hardly vary would make any difference look enormous."""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One domain as its own prompts show it under the base model; all in float64.

    ``mean`` (D,) and ``scatter`` (D, D) or (D,) of half its prompts, ``held`` (L, n, D) the features of the others cut
    to each of L lengths, which say how far a prompt of this domain usually is, ``gains`` (n,) what the adapter gains on
    those, in nats a token.
    """

    mean: Tensor
    scatter: Tensor
    count: Tensor
    held: Tensor
    gains: Tensor

    def tensors(self, name: str) -> dict[str, Tensor]:
        """By file name."""
        return {f"{name}.{field}": getattr(self, field).contiguous() for field in self.__dataclass_fields__}


@torch.inference_mode()
def measure_domain(
    model: Any, name: str, prompts: Iterable[Prompts], *, layer: int, covariance: str, lengths: Sequence[int]
) -> Domain:
    """Look at a domain's prompts under the base and under its own adapter ``name``, one batch at a time.

    Every other prompt makes the mean and the covariance, the rest calibrate: a distance to a mean that a prompt itself
    moved would come out too small. The last of ``lengths`` is that of whole prompts.
    """
    fitted: Moments | None = None
    gains, turn = [], 0
    held: list[list[Tensor]] = [[] for _ in lengths]
    for batch in prompts:
        looked = look(model, batch, layer)
        even = (torch.arange(len(batch.ids)) + turn) % 2 == 0
        turn += len(batch.ids)
        if fitted is None:
            width = looked.features.shape[1]
            fitted = Moments(width, diagonal=is_diagonal(width, covariance))  # type: ignore[arg-type]
        fitted.add(looked.features[even])
        for kept, features in zip(held, _shortened(model, batch, looked.features, ~even, layer, lengths), strict=True):
            kept.append(features.cpu())
        own = prompt_losses(model, batch, [name] * len(batch.ids))
        gains.append((looked.losses - own)[~even].cpu())
    if fitted is None or turn < LEAST_PROMPTS:
        raise Refused(f"domain {name} has {turn} prompts; its router needs at least {LEAST_PROMPTS}")
    return Domain(
        mean=fitted.mean,
        scatter=fitted.scatter,
        count=torch.tensor(fitted.count),
        held=torch.stack([torch.cat(one) for one in held]),
        gains=torch.cat(gains),
    )


def _shortened(
    model: Any, batch: Prompts, whole: Tensor, rows: Tensor, layer: int, lengths: Sequence[int]
) -> Iterator[Tensor]:
    """Features of ``rows`` (a mask) of a batch, cut to each of the lengths but the last, then as they are."""
    chosen = torch.arange(len(rows))[rows].tolist()
    for length in lengths[:-1]:
        part = batch.take(chosen)
        cut = Prompts.cut(part.ids, part.mask.sum(1).clamp_max(length)) if chosen else None
        yield whole[rows] if cut is None else look(model, cut, layer).features
    yield whole[rows]


def middle_layer(model: Any) -> int:
    """The hidden state at about two thirds of the depth (METHODS 3.7)."""
    return max(1, round(2 * int(model.config.get_text_config().num_hidden_layers) / 3))


def router_vectors(domains: Sequence[Domain], *, percentile: float) -> dict[str, Tensor]:
    """What the router reads: ``means`` (K, D), ``factor`` of the pooled covariance, ``gains`` (K, 2) mean and standard
    deviation, ``distances`` (K, L) that ``percentile`` of a domain's prompts of each length stay within.

    With one covariance for all domains the Gaussian prior is what a logistic regression on samples of the domains'
    Gaussians would learn (METHODS 3.7, router alignment); it needs no fitting.
    """
    means = torch.stack([domain.mean for domain in domains])
    counts = sum(int(domain.count) for domain in domains)
    scatter = torch.stack([domain.scatter for domain in domains]).sum(0)
    factor = factor_of(covariance_of(scatter, counts, counts - len(domains)))
    gains = [torch.stack([one.gains.mean(), one.gains.std().clamp_min(LEAST_SPREAD)]) for one in domains]
    away = [whitened(one.held - one.mean, factor).norm(dim=-1) for one in domains]
    distances = torch.stack([torch.stack([_reach(of, percentile) for of in one]) for one in away])
    return {"means": means, "factor": factor, "gains": torch.stack(gains), "distances": distances}


def _reach(distances: Tensor, percentile: float) -> Tensor:
    """The distance that a further prompt of the domain stays within with this chance in percent.

    By its rank, as in split conformal prediction (Vovk et al. 2005). Of too few distances for that it is where the next
    one of a normal distribution would stay, and no less than their largest: their own quantile would send more of the
    domain's prompts away than it says.
    """
    count = len(distances)
    rank = math.ceil((count + 1) * percentile / 100)
    if rank <= count:
        return distances.kthvalue(rank).values.clamp_min(1e-6)
    sure = NormalDist().inv_cdf(min(percentile / 100, 1 - 1e-6))
    further = distances.mean() + sure * distances.std() * (1 + 1 / count) ** 0.5
    return torch.maximum(further, distances.max()).clamp_min(1e-6)


def write_domains(folder: Path, domains: dict[str, Domain]) -> None:
    """Statistics of all domains, for the next task, and their digest."""
    save_file({key: value for name, one in domains.items() for key, value in one.tensors(name).items()}, folder / FILE)
    (folder / DIGEST).write_text(json.dumps({"format": 1, "sha256": file_digest(folder / FILE)}))


def read_domains(folder: Path, names: Sequence[str]) -> dict[str, Domain]:
    """What :func:`write_domains` wrote, in the order of ``names``.

    Raises:
        BadState: the file is missing, was changed, or lacks a domain.
    """
    fields = tuple(Domain.__dataclass_fields__)
    try:
        if file_digest(folder / FILE) != json.loads((folder / DIGEST).read_bytes())["sha256"]:
            raise BadState(f"the router's statistics in {folder} were changed; restore the version")
        tensors = load_file(folder / FILE)
        return {name: Domain(**{field: tensors[f"{name}.{field}"] for field in fields}) for name in names}
    except (OSError, ValueError, KeyError) as error:
        raise BadState(f"the router's statistics in {folder} cannot be used: {error}") from error
