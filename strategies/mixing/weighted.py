"""A sampler by weights that may change: exact, deterministic, resumable (METHODS 1.4, 4).

A domain's quota after a step is the exact sum of its weights times the batch, over all steps so far. Every domain but
``rest`` has then given the floor of its quota; ``rest`` gives what is left of each batch. Where the floors of a step
ask for more than a batch (many domains, small batches), those furthest behind come first: no domain is ever above its
quota, and all K - 1 together are at most K - 2 rows late; with ``batch * weight(rest) >= K - 1`` none ever is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Protocol

import numpy as np

from strategies.errors import BadPlan, BadState, Diverged
from strategies.mixing.cursor import FORMAT, checkpointed, continued, read_cursors
from strategies.mixing.exact import decimals, fraction, rounded
from strategies.mixing.order import permuted
from strategies.mixing.simplex import caps, within
from strategies.mixing.stream import Stream
from strategies.mixing.trajectory import MixturePoint
from strategies.parts import WeightedMixing
from strategies.settings import Json


class Reweighting(Protocol):
    """Says which weights follow. ``before`` and the answer are weights of all domains that sum to 1."""

    def update(self, step: int, before: Mapping[str, float], losses: Mapping[str, float]) -> Mapping[str, float]: ...
    def state_dict(self) -> Json: ...
    def load_state_dict(self, state: Json) -> None: ...


class WeightedMixer:
    """Draws the rows of each of ``steps`` optimizer steps from ``rows`` (source -> number of rows) by ``mixing``.

    ``state`` is the mixing state of an earlier stage (any mixing's): each source goes on with the rows it has left.
    ``policy`` turns the losses of :meth:`observe` into weights; without one they stay as they are.
    """

    def __init__(
        self,
        mixing: WeightedMixing,
        rows: Mapping[str, int],
        *,
        steps: int,
        state: Json | None = None,
        policy: Reweighting | None = None,
    ) -> None:
        self.mixing = mixing
        self.policy = policy
        self.observe_every = mixing.observe_every
        self._weights = _weights(mixing.weights, mixing)
        _check(mixing, rows)
        self._settings: Json = mixing.model_dump(mode="json", exclude={"cursor"})
        self._steps = steps
        self._rows = {name: rows[name] for names in mixing.domains.values() for name in names}
        self._cursors = read_cursors(state)
        for name, count in self._rows.items():
            self._cursors[name] = continued(self._cursors.get(name), name, rows=count, order=mixing.order)
            self._cursors[name].cut(mixing.order)
        self._step = 0
        self._quotas = dict.fromkeys(self._weights, Fraction(0))
        self._drawn = dict.fromkeys(mixing.domains, 0)
        self._policy_state = None if policy is None else policy.state_dict()
        self._course: list[Json] = [self._point({})]
        self._open_streams()

    @property
    def step(self) -> int:
        """Optimizer steps drawn so far."""
        return self._step

    @property
    def observed(self) -> int | None:
        """The last step at which :meth:`observe` was called."""
        return int(self._course[-1]["step"]) if self._course[-1]["losses"] else None

    @property
    def trajectory(self) -> tuple[MixturePoint, ...]:
        """Every mixture that was in force, and the losses that led to it."""
        return tuple(MixturePoint.model_validate(point) for point in self._course)

    def weights(self) -> dict[str, float]:
        """Weights in force, of all domains."""
        return {name: float(weight) for name, weight in self._exact().items()}

    def decimals(self) -> dict[str, str]:
        """Weights in force, exactly."""
        return {name: decimals(weight) for name, weight in self._exact().items()}

    def draw(self, step: int) -> list[tuple[str, int]]:
        """Source and row of every row of optimizer step ``step``; steps are drawn in turn, from 1."""
        if step != self._step + 1:
            raise BadState(f"step {step} was asked for but step {self._step + 1} is next; steps are drawn in turn")
        self._step = step
        drawn: list[tuple[str, int]] = []
        for name, count in self._counts().items():
            self._drawn[name] += count
            drawn += self._streams[name].take(count)
        slots = permuted(np.arange(self.mixing.batch, dtype=np.int64), self.mixing.order, "batch", step)
        return [drawn[slot] for slot in slots.tolist()]

    def observe(self, step: int, losses: Mapping[str, float]) -> None:
        """Losses of the model on ``select`` sets after ``step``, the last one drawn; sets the weights from there on."""
        if step != self._step:
            raise BadState(f"losses of step {step} were shown after step {self._step} was drawn; stop at step {step}")
        bad = sorted(name for name, loss in losses.items() if not math.isfinite(loss))
        if bad or not losses:
            raise Diverged(f"the loss on {bad[0] if bad else 'every eval set'} is missing or not finite at step {step}")
        if self.policy is not None and step < self._steps:
            self._weights = self._limited(self.policy.update(step, self.weights(), losses))
            self._policy_state = self.policy.state_dict()
        # A new list each time: checkpoints on their way to the disk hold the old one.
        self._course = [*(point for point in self._course if point["step"] < step), self._point(losses)]

    def state_dict(self) -> Json:
        """Everything the next draw depends on, as JSON; sources of earlier stages keep their cursors."""
        return {
            "format": FORMAT,
            "kind": self.mixing.kind,
            "settings": self._settings,
            "step": self._step,
            "weights": {name: decimals(weight) for name, weight in self._weights.items()},
            "quotas": {name: str(quota) for name, quota in self._quotas.items()},
            "drawn": dict(self._drawn),
            "course": self._course,
            "policy": self._policy_state,
            "sources": {name: cursor.to_json() for name, cursor in self._cursors.items()},
        }

    def load_state_dict(self, state: Json) -> None:
        """Go on within the same job: the next draw is the one that would have followed ``state``."""
        self._cursors = checkpointed(state, self._settings, self._rows)
        self._step = int(state["step"])
        self._weights = _weights(state["weights"], self.mixing)
        self._quotas = {name: Fraction(quota) for name, quota in state["quotas"].items()}
        self._drawn = {name: int(count) for name, count in state["drawn"].items()}
        self._course = list(state["course"])
        self._policy_state = state["policy"]
        if self.policy is not None:
            self.policy.load_state_dict(state["policy"])
        self._open_streams()

    def _point(self, losses: Mapping[str, float]) -> Json:
        return MixturePoint(step=self._step, weights=self.decimals(), losses=dict(losses)).model_dump()

    def _exact(self) -> dict[str, Fraction]:
        rest = 1 - sum(self._weights.values(), Fraction(0))
        return {name: self._weights.get(name, rest) for name in self.mixing.domains}

    def _open_streams(self) -> None:
        self._streams = {
            name: Stream([self._cursors[source] for source in sources], self.mixing.order)
            for name, sources in self.mixing.domains.items()
        }

    def _counts(self) -> dict[str, int]:
        """Rows of the next batch by domain."""
        room = self.mixing.batch
        for name, weight in self._weights.items():
            self._quotas[name] += weight * room
        counts = {name: math.floor(quota) - self._drawn[name] for name, quota in self._quotas.items()}
        if sum(counts.values()) > room:
            counts = self._furthest_behind(counts, room)
        return {**counts, self.mixing.rest: room - sum(counts.values())}

    def _furthest_behind(self, due: Mapping[str, int], room: int) -> dict[str, int]:
        counts = dict.fromkeys(due, 0)
        for _ in range(room):
            waiting = [name for name in due if counts[name] < due[name]]
            behind = {name: self._quotas[name] - self._drawn[name] - counts[name] for name in waiting}
            counts[max(waiting, key=lambda name: (behind[name], name))] += 1
        return counts

    def _limited(self, proposed: Mapping[str, float]) -> dict[str, Fraction]:
        limits = self.mixing.limits
        if limits is not None:
            proposed = within(limits, self.weights(), proposed, most=self._caps(limits.epochs_max))
        exact = rounded(proposed, self.mixing.rest)
        return {name: exact[name] for name in self._weights}

    def _caps(self, epochs_max: float | None) -> dict[str, float] | None:
        if epochs_max is None:
            return None
        sizes = {name: sum(self._rows[source] for source in of) for name, of in self.mixing.domains.items()}
        left = {name: epochs_max * size - self._drawn[name] for name, size in sizes.items()}
        return caps(left, self.mixing.batch * (self._steps - self._step))


def _weights(weights: Mapping[str, str], mixing: WeightedMixing) -> dict[str, Fraction]:
    if mixing.rest not in mixing.domains or set(weights) != set(mixing.domains) - {mixing.rest}:
        raise BadPlan("weights are needed for every domain but the one named as rest; rest takes what they leave")
    exact = {name: fraction(weights[name], f"weight of {name}") for name in sorted(weights)}
    if min(exact.values(), default=Fraction(0)) < 0 or sum(exact.values()) > 1:
        raise BadPlan("weights cannot be negative or sum to more than 1; rest takes what they leave")
    return exact


def _check(mixing: WeightedMixing, rows: Mapping[str, int]) -> None:
    sources = [name for names in mixing.domains.values() for name in names]
    if len(set(sources)) != len(sources):
        raise BadPlan(f"source {max(sources, key=sources.count)} is in two domains; a source is in one, once")
    missing = sorted(set(sources) - set(rows))
    if missing:
        raise BadPlan(f"no rows are given for source {missing[0]}; every source of the mixing needs its file")
    empty = sorted(name for name, names in mixing.domains.items() if not any(rows[source] for source in names))
    if empty:
        raise BadPlan(f"domain {empty[0]} has no rows to draw; leave it out")
    if mixing.reweight is not None and mixing.observe_every is None:
        raise BadPlan("reweight is set but observe_every is not, so that no loss would be seen; set observe_every")
