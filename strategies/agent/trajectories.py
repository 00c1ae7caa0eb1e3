"""Trajectories: what a run's mixtures did to its losses, step by step, as closed and versioned JSON lines.

Every run that evaluates its domains while it trains leaves one, so that an agent can learn from them later.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from strategies.errors import BadState
from strategies.settings import Closed, Json

FORMAT = 2
MAX_LINE_BYTES = 64 << 20
_TOLERANCE = 1e-6


class TrajectoryDomain(Closed):
    """One domain of the data and what is known of it before training."""

    name: str
    new: bool
    """Whether it is what the training is for; all others are old and must not be forgotten."""
    prior: float = Field(ge=0, le=1)
    """Its share of all tokens."""
    similarity: float = Field(0.0, ge=-1, le=1)
    """Cosine of its token frequencies to the mean of the new domains'; 0 where it was not measured."""

    @model_validator(mode="before")
    @classmethod
    def _of_format_1(cls, raw: Any) -> Any:
        """There, what is new was called a target."""
        if not isinstance(raw, dict):
            return raw
        return {"new" if key == "target" else key: value for key, value in raw.items()}


class Provenance(Closed):
    """Where the numbers come from."""

    seeds: dict[str, int] = Field(default_factory=dict)
    settings: Json = Field(default_factory=dict)
    model: Json = Field(default_factory=dict)
    """Configuration of the model that was trained."""
    data: dict[str, str] = Field(default_factory=dict)
    """Domain -> sha256 of its data."""
    versions: dict[str, str] = Field(default_factory=dict)


class MixtureStep(Closed):
    """One re-weighting step: the mixture that was trained on, and what each domain's loss was after it."""

    step: int = Field(ge=1)
    weights: tuple[float, ...]
    losses: tuple[float, ...]
    """Mean validation loss a token of every domain, in nats."""
    tokens: int = Field(ge=0)
    """Tokens trained on in this step."""

    @model_validator(mode="after")
    def _a_mixture(self) -> MixtureStep:
        _check_mixture(self.weights)
        _check_losses(self.losses)
        return self


class TrajectoryHeader(Closed):
    """What is known of a trajectory before its first step."""

    environment: str
    """Trajectories of one environment have comparable losses: a collection's (same model, start, data and schedule),
    or all runs of a stream."""
    domains: tuple[TrajectoryDomain, ...] = Field(min_length=1)
    total: int = Field(ge=1)
    """Re-weighting steps that the run is planned for."""
    provenance: Provenance = Provenance()

    @model_validator(mode="after")
    def _told_apart(self) -> TrajectoryHeader:
        if len(set(self.names)) != len(self.domains):
            raise ValueError("two domains have the same name")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(domain.name for domain in self.domains)

    @property
    def prior(self) -> tuple[float, ...]:
        return priors(self.domains)

    def begun(self, start: Sequence[float]) -> Trajectory:
        """The trajectory before its first step, at which the domains have losses ``start``."""
        return Trajectory(**{name: getattr(self, name) for name in TrajectoryHeader.model_fields}, start=tuple(start))


class Trajectory(TrajectoryHeader):
    """A run as an agent sees it; shorter than ``total`` while it is under way or where it was ended early."""

    format: Annotated[Literal[2], BeforeValidator(lambda found: FORMAT if found == 1 else found)] = 2
    """What was read of format 1 is of this one."""
    start: tuple[float, ...]
    """Losses before the first step."""
    steps: tuple[MixtureStep, ...] = ()

    @model_validator(mode="after")
    def _in_turn(self) -> Trajectory:
        _check_losses(self.start)
        if len(self.steps) > self.total or any(at != done.step for at, done in enumerate(self.steps, start=1)):
            raise ValueError("steps are counted from 1 in turn, up to total")
        sizes = {len(self.start), *(len(done.weights) for done in self.steps), *(len(s.losses) for s in self.steps)}
        if sizes != {len(self.domains)}:
            raise ValueError("every step has one weight and one loss for each domain")
        return self

    @property
    def complete(self) -> bool:
        return len(self.steps) == self.total

    def after(self, *, weights: Sequence[float], losses: Sequence[float], tokens: int) -> Trajectory:
        """This trajectory with one step more."""
        done = MixtureStep(step=len(self.steps) + 1, weights=tuple(weights), losses=tuple(losses), tokens=tokens)
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return Trajectory(**{**fields, "steps": (*self.steps, done)})


def priors(domains: Sequence[TrajectoryDomain]) -> tuple[float, ...]:
    """Token shares that add up to 1; equal ones where none is known."""
    shares = [domain.prior for domain in domains]
    total = sum(shares)
    return tuple(share / total if total > 0 else 1 / len(shares) for share in shares)


def line(trajectory: Trajectory) -> bytes:
    """A trajectory as JSON on a line of its own."""
    return trajectory.model_dump_json().encode() + b"\n"


def append(path: Path, trajectories: Iterable[Trajectory]) -> None:
    """Add trajectories to a JSON-lines file, one a line."""
    with path.open("ab") as file:
        for trajectory in trajectories:
            file.write(line(trajectory))
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> Iterator[Trajectory]:
    """The trajectories of a file, one at a time.

    Raises:
        BadState: a line is torn, too long, unknown or of a newer format.
    """
    with path.open("rb") as file:
        number = 0
        while data := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path.name}, line {number},"
            if len(data) > MAX_LINE_BYTES:
                raise BadState(f"{where} is longer than {MAX_LINE_BYTES} bytes: it is not a trajectory")
            yield parse(_json(data, where), where=where)


def parse(value: object, *, where: str) -> Trajectory:
    """A trajectory from JSON values; ``where`` names its place in errors."""
    found = value.get("format") if isinstance(value, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise BadState(f"{where} holds a trajectory of format {found}, this version reads {FORMAT}: update Rekindle")
    try:
        return Trajectory.model_validate(value)
    except ValidationError as error:
        raise BadState(f"{where} is not a trajectory: {error.errors()[0]['msg']}; remove it") from error


def _json(data: bytes, where: str) -> object:
    try:
        return json.loads(data)
    except ValueError as error:
        raise BadState(f"{where} is not JSON: remove it") from error


def _check_mixture(weights: Sequence[float]) -> None:
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise ValueError("weights are finite and not negative")
    if abs(sum(weights) - 1) > _TOLERANCE:
        raise ValueError("weights of a step add up to 1")


def _check_losses(losses: Sequence[float]) -> None:
    if not all(math.isfinite(loss) for loss in losses):
        raise ValueError("losses are finite")
