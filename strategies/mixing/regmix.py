"""RegMix: mixtures for many tiny runs, and what was learnt from them (Liu et al. 2024, arXiv 2407.01492; METHODS 4.2).

The regression itself is heavy: :mod:`strategies.fitting.regmix`. Only the rank of mixtures carries over to a larger
model; predicted losses are of the tiny one. The constants of the draws are those of the paper and its published code.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from strategies.contract.regmix import LEAST_RUNS, FitSettings, ProxyRun
from strategies.errors import BadPlan
from strategies.mixing.dirichlet import log_gammas
from strategies.mixing.simplex import Weights, caps, normalised, project

Table = NDArray[np.float64]
TEMPERATURE = 0.5
"""Power of the prior that the draws centre on: below 1, small domains come up more often."""
STRENGTHS = np.geomspace(0.1, 5.0, 15)
MOST_OVER_PRIOR = 15.0
"""A mixture with a weight above this many times the prior is rejected."""
GRID = 2e-4
"""Weights below it become 0, the others its multiples."""
OVERSAMPLE = 100
"""So many times the mixtures that are wanted are drawn, for many are near each other."""
NEAR = 1e-5
"""Mixtures that are no further apart (sum of absolutes) are one."""
_FINER = (1, 2, 4, 8)
"""How many times finer the grid may become: beyond that a limit so small gives a tiny run no row."""
_BLOCK = 8192
_MAX_BLOCKS = 4096


def candidates(prior: Weights, runs: int, *, seed: str) -> list[dict[str, float]]:
    """``runs`` different mixtures around the tempered prior (steps 1 to 5).

    Each picks one of the strengths c and is drawn from Dirichlet(c * tempered prior). Where the limit of a small domain
    leaves too few of them apart, they are drawn again on a finer grid. They are to be kept by value: nothing promises
    that another version of numpy would draw them again.

    Raises:
        BadPlan: no grid tells so many apart, because a domain is too small.
    """
    plain = normalised(prior)
    for finer in _FINER:
        random = generator(seed)
        distinct = _distinct(_oversampled(plain, runs, GRID / finer, random))
        if len(distinct) >= runs:
            kept = distinct[np.sort(random.permutation(len(distinct))[:runs])]
            return [dict(zip(plain, row, strict=True)) for row in random.permutation(kept).tolist()]
    raise _too_small(plain, runs)


def generator(seed: str) -> np.random.Generator:
    """A stream of random numbers under a spelled-out seed."""
    digest = hashlib.sha256(seed.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def targets(runs: Sequence[ProxyRun], settings: FitSettings) -> list[float]:
    """``w * L_old + (1 - w) * L_new`` of each run, each side the mean over its eval sets."""
    sides = [(settings.old_weight, settings.old), (1 - settings.old_weight, settings.new)]
    wanted = [(share, sets) for share, sets in sides if share]
    if not all(sets for _, sets in wanted):
        raise BadPlan("the target has no eval set on one side; name one, or set old_weight to 0 or 1")
    missing = sorted({name for _, sets in wanted for name in sets for run in runs if name not in run.losses})
    if missing:
        raise BadPlan(f"a tiny run has no loss on eval set {missing[0]}; leave the set or the run out")
    return [sum(share * sum(run.losses[name] for name in sets) / len(sets) for share, sets in wanted) for run in runs]


def _too_small(prior: Weights, runs: int) -> BadPlan:
    name = min(prior, key=prior.__getitem__)
    fewer = f"ask for fewer runs ({LEAST_RUNS} at least), " if runs > LEAST_RUNS else ""
    return BadPlan(
        f"regmix finds fewer than {runs} different mixtures within its limits, as domain {name} has only"
        f" {prior[name]:.2g} of all tokens; {fewer}give it more data, or leave regmix out: skill-it needs no tiny runs"
    )


def _oversampled(plain: Weights, runs: int, grid: float, random: np.random.Generator) -> Table:
    prior = np.array(list(plain.values()))
    most = np.minimum(MOST_OVER_PRIOR * prior, 1.0)
    found: list[Table] = []
    count = 0
    for _ in range(_MAX_BLOCKS):
        drawn = _block(prior, random)
        found.append(_gridded(drawn[(drawn <= most).all(1)], grid))
        count += len(found[-1])
        if count >= runs * OVERSAMPLE:
            return np.concatenate(found)[: runs * OVERSAMPLE]
    raise _too_small(plain, runs)


def _block(prior: Table, random: np.random.Generator) -> Table:
    """Mixtures around the tempered prior, each of a strength of its own."""
    centre = prior**TEMPERATURE / (prior**TEMPERATURE).sum()
    return _dirichlet(STRENGTHS[random.integers(len(STRENGTHS), size=_BLOCK)][:, None] * centre, random)


def _dirichlet(concentrations: Table, random: np.random.Generator) -> Table:
    """One draw a row."""
    logs = log_gammas(np.maximum(concentrations, 1e-12), random)
    weights = np.exp(logs - logs.max(1, keepdims=True))
    found: Table = weights / weights.sum(1, keepdims=True)
    return found


def _gridded(weights: Table, grid: float) -> Table:
    rounded = np.where(weights < grid, 0.0, np.round(weights / grid) * grid)
    found: Table = rounded / rounded.sum(1, keepdims=True)
    return found


def _distinct(rows: Table) -> Table:
    """Rows in lexicographic order without those close to the one before.

    Rows on one grid are equal or a grid step apart, so that neighbours in this order are the only near ones.
    """
    ordered = rows[np.lexsort(np.round(rows, 7).T[::-1])]
    far = np.abs(np.diff(ordered, axis=0)).sum(1) > NEAR
    return ordered[np.concatenate([[True], far])] if len(ordered) else ordered


def simulated(prior: Weights, count: int, random: np.random.Generator) -> Table:
    """``count`` mixtures from Dirichlet(prior): the plain prior this time, not the tempered one (step 8)."""
    shapes = np.array(list(normalised(prior).values()))
    return _dirichlet(np.broadcast_to(shapes, (count, len(shapes))), random)


def features(runs: Sequence[ProxyRun], domains: Sequence[str]) -> Table:
    """Weights of the runs, (runs, domains)."""
    strange = sorted({name for run in runs for name in run.weights} - set(domains))
    if strange:
        raise BadPlan(f"a tiny run has domain {strange[0]}, which the prior has not; fit runs of one domain space")
    return np.array([[run.weights.get(name, 0.0) for name in domains] for run in runs], dtype=np.float64)


def capped(weights: Weights, settings: FitSettings) -> dict[str, float]:
    """``weights`` so that no domain's tokens are taken more than ``epochs_max`` times in ``budget`` tokens."""
    if settings.epochs_max is None:
        return dict(weights)
    left = {name: settings.epochs_max * settings.tokens[name] for name in weights}
    return project(weights, floor=0.0, most=caps(left, settings.budget))
