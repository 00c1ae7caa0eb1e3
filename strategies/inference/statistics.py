"""A Gaussian a class: gathered in float64, shrunk, stored without pickle, drawn from to align a head (METHODS 3.2)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from strategies.errors import BadState
from strategies.inference.bank.files import file_digest
from strategies.settings.consolidation import AlignSettings

FORMAT = 1
FILE = "statistics.json"
TENSORS = "statistics.safetensors"
RIDGE = 1e-4
SHRINKAGE = 0.1
FULL_DIMENSIONS = 1024
"""Above this a full covariance of every class takes more room than it is worth."""


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """One class or domain: mean (d,), covariance (d, d) or its diagonal (d,), of ``count`` samples; float64."""

    mean: Tensor
    covariance: Tensor
    count: int


class Moments:
    """Mean and scatter of vectors that come in pieces (Chan et al. 1979), in float64; the pieces are not kept."""

    def __init__(self, dimensions: int, *, diagonal: bool) -> None:
        self.diagonal = diagonal
        self.count = 0
        self.mean = torch.zeros(dimensions, dtype=torch.float64)
        self.scatter = torch.zeros(dimensions if diagonal else (dimensions, dimensions), dtype=torch.float64)

    def add(self, samples: Tensor) -> None:
        """More samples (n, d)."""
        if not len(samples):
            return
        found = samples.detach().to("cpu", torch.float64)
        mean, total = found.mean(0), self.count + len(found)
        away, shift = found - mean, mean - self.mean
        weight = self.count * len(found) / total
        if self.diagonal:
            self.scatter += away.square().sum(0) + weight * shift.square()
        else:
            self.scatter += away.T @ away + weight * torch.outer(shift, shift)
        self.mean = self.mean + shift * (len(found) / total)
        self.count = total

    def gaussian(self) -> Gaussian:
        """The class's Gaussian, see :func:`covariance_of`."""
        return Gaussian(mean=self.mean.clone(), covariance=covariance_of(self.scatter, self.count), count=self.count)


def is_diagonal(dimensions: int, wanted: Literal["auto", "full", "diagonal"]) -> bool:
    """Whether covariances keep their diagonal only."""
    return wanted == "diagonal" or (wanted == "auto" and dimensions > FULL_DIMENSIONS)


def covariance_of(scatter: Tensor, count: int, freedom: int | None = None) -> Tensor:
    """Covariance (d, d) or (d,) from a sum of squares: unbiased, shrunk where samples are few, plus a ridge.

    With fewer than 4 d samples it becomes (1 - rho) S + rho tr(S) / d I, rho = 0.1; 1e-4 I is always added
    (METHODS 3.2, 3.6). ``freedom`` is ``count - 1`` unless several means were taken off.
    """
    dimensions = scatter.shape[-1]
    found = scatter / max(1, count - 1 if freedom is None else freedom)
    diagonal = found if found.ndim == 1 else found.diagonal()
    if count < 4 * dimensions:
        spread = SHRINKAGE * diagonal.sum() / dimensions
        found = (1 - SHRINKAGE) * found + (spread if found.ndim == 1 else spread * torch.eye(dimensions).double())
    ridged: Tensor = found + (RIDGE if found.ndim == 1 else RIDGE * torch.eye(dimensions).double())
    return ridged


def factor_of(covariance: Tensor) -> Tensor:
    """Lower Cholesky factor (d, d) of a covariance, or standard deviations (d,) of a diagonal one, in float64.

    Rounding can leave a matrix barely indefinite: jitter grows tenfold until the factor exists.

    Raises:
        BadState: the matrix is not a covariance.
    """
    if covariance.ndim == 1:
        return covariance.clamp_min(0).sqrt()
    unit = covariance.diagonal().mean().clamp_min(1e-12) * torch.eye(len(covariance), dtype=covariance.dtype)
    for jitter in (0.0, *(10.0**power for power in range(-10, -1))):
        found = torch.linalg.cholesky_ex(covariance + jitter * unit)
        if not int(found.info):
            factor: Tensor = found.L
            return factor
    raise BadState("a class covariance has no Cholesky factor; make the statistics anew")


@dataclass(frozen=True, kw_only=True)
class Prototype:
    """A class's mean feature (d,) under the first adapter, of ``count`` samples; float64."""

    mean: Tensor
    count: int


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """What a bank remembers of its classes for training the next task, by class."""

    gaussians: Mapping[str, Gaussian] = field(default_factory=dict)
    prototypes: Mapping[str, Prototype] = field(default_factory=dict)


def write_statistics(folder: Path, statistics: Statistics) -> None:
    """``statistics.json`` and ``statistics.safetensors``."""
    tensors = {f"prototype.{at}": one.mean for at, one in enumerate(statistics.prototypes.values())}
    for at, gaussian in enumerate(statistics.gaussians.values()):
        tensors |= {f"mean.{at}": gaussian.mean, f"covariance.{at}": gaussian.covariance}
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, folder / TENSORS)
    values = {
        "format": FORMAT,
        "counts": {name: gaussian.count for name, gaussian in statistics.gaussians.items()},
        "prototypes": {name: one.count for name, one in statistics.prototypes.items()},
        "sha256": file_digest(folder / TENSORS),
    }
    (folder / FILE).write_text(json.dumps(values, indent=2, ensure_ascii=False))


def read_statistics(folder: Path) -> Statistics:
    """What :func:`write_statistics` wrote.

    Raises:
        BadState: a file is missing, changed, or of a newer format.
    """
    try:
        values = json.loads((folder / FILE).read_bytes())
        if values["format"] != FORMAT or file_digest(folder / TENSORS) != values["sha256"]:
            raise BadState(f"the statistics in {folder} were changed, or have a newer format")
        tensors = load_file(folder / TENSORS)
        gaussians = {
            name: Gaussian(mean=tensors[f"mean.{at}"], covariance=tensors[f"covariance.{at}"], count=int(count))
            for at, (name, count) in enumerate(values["counts"].items())
        }
        prototypes = {
            name: Prototype(mean=tensors[f"prototype.{at}"], count=int(count))
            for at, (name, count) in enumerate(values["prototypes"].items())
        }
        return Statistics(gaussians=gaussians, prototypes=prototypes)
    except (OSError, ValueError, KeyError) as error:
        raise BadState(f"the statistics in {folder} cannot be used: {error}") from error


def gather(features: Iterable[tuple[Tensor, Tensor]], *, diagonal: bool) -> dict[int, Moments]:
    """Moments of each class from pieces of (features (n, d), classes (n,))."""
    found: dict[int, Moments] = {}
    for piece, classes in features:
        for place in sorted(set(classes.tolist())):
            made = found.setdefault(place, Moments(piece.shape[1], diagonal=diagonal))
            made.add(piece[classes.to(piece.device) == place])
    return found


def align(
    head: nn.Linear, gaussians: Mapping[int, Gaussian], settings: AlignSettings, *, batch: int, seed: int
) -> list[float]:
    """Train ``head`` (and nothing else) on samples of every class, by its row; returns each epoch's mean loss.

    Each epoch draws ``settings.batches * batch`` features a class, shuffles them all and takes one step for each as
    many: as many steps as there are classes. SGD, cosine over epochs, plain cross-entropy over all classes that have a
    Gaussian (METHODS 3.2).
    """
    places, factors = sorted(gaussians), {place: factor_of(gaussians[place].covariance) for place in gaussians}
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(
        head.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=settings.epochs)
    size = settings.batches * batch
    losses = []
    for _ in range(settings.epochs):
        drawn = torch.cat([_draw(gaussians[place], factors[place], size, generator) for place in places])
        targets = torch.arange(len(places)).repeat_interleave(size)
        order = torch.randperm(len(drawn), generator=generator)
        steps = [_align_step(head, optimizer, drawn[part], targets[part], places) for part in torch.split(order, size)]
        cosine.step()
        losses.append(sum(steps) / len(steps))
    return losses


def _draw(gaussian: Gaussian, factor: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Samples (count, d) of one class, in float64 until they are made."""
    noise = torch.randn(count, len(gaussian.mean), generator=generator, dtype=torch.float64)
    return (gaussian.mean + (noise * factor if factor.ndim == 1 else noise @ factor.T)).float()


def _align_step(
    head: nn.Linear, optimizer: torch.optim.Optimizer, features: Tensor, targets: Tensor, places: list[int]
) -> float:
    device = head.weight.device
    with torch.enable_grad():
        logits = head(features.to(device)).float()[:, places]
        loss = torch.nn.functional.cross_entropy(logits, targets.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())
