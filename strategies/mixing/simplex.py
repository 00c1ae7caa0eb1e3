"""What keeps a re-weighted mixture sane: floor, cap by epochs, slow change, and a guard (METHODS 4.1)."""

from __future__ import annotations

from collections.abc import Mapping

from strategies.errors import BadPlan, BadState
from strategies.settings import Json
from strategies.settings.mixing import MixtureLimits

Weights = Mapping[str, float]
_TINY = 1e-300
_HALVINGS = 200
_ROUNDING = 1e-9
"""By how much a sum of equal weights may miss 1."""


def caps(left: Weights, budget: float) -> dict[str, float]:
    """Greatest weight a domain of which ``left`` rows (or tokens) may still be taken, when ``budget`` are drawn in all.

    From ``a_k * N * remaining <= epochs_max * tokens_k``: ``budget`` is ``N * remaining``, and ``left[k]`` is
    ``epochs_max * tokens_k`` less what was taken already, so that the bound holds over the whole job.
    """
    return {name: min(1.0, max(0.0, count) / budget) for name, count in left.items()}


def project(weights: Weights, *, floor: float, most: Weights | None = None) -> dict[str, float]:
    """``weights`` scaled by one factor and clipped into ``[floor, most[k]]``, so that they sum to 1.

    A cap below the floor counts: rows that are not there cannot be taken. Caps that sum to less than 1 cannot all be
    kept; every domain is then repeated equally often. Where nothing is left of any domain no cap can be kept at all.
    """
    if most is not None and not any(most[name] for name in weights):
        most = None
    high = dict.fromkeys(weights, 1.0) if most is None else {name: most[name] for name in weights}
    if sum(high.values()) <= 1.0:
        return _normalised(high)
    low = {name: min(floor, high[name]) for name in weights}
    if sum(low.values()) > 1.0 + _ROUNDING:
        raise BadPlan(f"{len(weights)} domains cannot each have a weight of {floor}; lower limits.floor")
    return _normalised(_scaled({name: max(weight, _TINY) for name, weight in weights.items()}, low, high))


def limit_change(before: Weights, after: Weights, most: float) -> dict[str, float]:
    """``after``, or the point on the way to it whose distance from ``before`` (sum of absolutes) is ``most``.

    Both being inside the floor and the caps, so is every point between them.
    """
    distance = sum(abs(after[name] - before[name]) for name in before)
    share = 1.0 if distance <= most else most / distance
    return {name: before[name] + share * (after[name] - before[name]) for name in before}


def within(limits: MixtureLimits, before: Weights, after: Weights, *, most: Weights | None) -> dict[str, float]:
    """``after`` as far as ``limits`` let it go from ``before``; floor, caps, change, sum 1."""
    target = project(after, floor=limits.floor / len(after), most=most)
    return _normalised(limit_change(before, target, limits.max_change))


def normalised(weights: Weights) -> dict[str, float]:
    """``weights`` over their sum; refuses what is no mixture."""
    if not weights or min(weights.values()) < 0 or not 0 < sum(weights.values()) < float("inf"):
        raise BadPlan("weights must be finite, not negative and not all 0")
    return _normalised(weights)


def _normalised(weights: Weights) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _scaled(weights: Weights, low: Weights, high: Weights) -> dict[str, float]:
    """Clip ``factor * weights``, the factor found by halving in its logarithm: the sum grows with it."""

    def clipped(power: float) -> dict[str, float]:
        factor = 2.0**power
        return {name: min(high[name], max(low[name], factor * weight)) for name, weight in weights.items()}

    least, greatest = -1000.0, 1020.0
    for _ in range(_HALVINGS):
        middle = (least + greatest) / 2
        least, greatest = (middle, greatest) if sum(clipped(middle).values()) < 1.0 else (least, middle)
    return clipped(greatest)


class Guard:
    """Gives up re-weighting for the best constant mixture once it was worse ``patience`` times in a row.

    A mixture is worth what its return estimate says, compared with those of the constant mixtures (uniform, prior,
    replay 5 and 25 %, RegMix …) after the same tokens. Once given up, it stays given up.
    """

    def __init__(self, constants: Mapping[str, Weights], *, patience: int = 3) -> None:
        if not constants:
            raise BadPlan("the guard has no constant mixture to compare with; give it at least the prior")
        self._constants = {name: normalised(weights) for name, weights in constants.items()}
        self._patience = patience
        self._below = 0
        self.chosen: str | None = None
        """Name of the constant mixture that took over, or None."""

    def check(self, estimate: float, references: Mapping[str, float]) -> dict[str, float] | None:
        """The mixture to go on with instead, or None to go on with re-weighting.

        ``references`` are the return estimates of the constant mixtures at the same step; an estimate that is not a
        number counts as below.
        """
        if self.chosen is None:
            best = max(sorted(references), key=references.__getitem__)
            self._below = 0 if estimate >= references[best] else self._below + 1
            if self._below >= self._patience:
                self.chosen = best
        return None if self.chosen is None else dict(self._constants[self.chosen])

    def state_dict(self) -> Json:
        return {"below": self._below, "chosen": self.chosen}

    def load_state_dict(self, state: Json) -> None:
        """Go on from :meth:`state_dict`."""
        chosen = state["chosen"]
        if chosen is not None and chosen not in self._constants:
            raise BadState(f"the guard chose mixture {chosen}, which it no longer knows; start the job anew")
        self._below, self.chosen = int(state["below"]), chosen
