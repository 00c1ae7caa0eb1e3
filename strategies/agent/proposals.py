"""The mixtures of the runs that an agent learns from: pure, and by value in the plan (METHODS 4.1, Trajectories)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence

from strategies.agent.trajectories import TrajectoryDomain, priors
from strategies.errors import BadPlan
from strategies.settings import Closed
from strategies.settings.agent import ProposalSettings

Mixture = tuple[float, ...]
RAMP = (0.1, 0.9)
"""Share of the new domains at the first and the last step of a ramp."""


class Proposal(Closed):
    """One run: a mixture for each of its re-weighting steps."""

    name: str
    mixtures: tuple[Mixture, ...]


def propose(
    domains: Sequence[TrajectoryDomain], settings: ProposalSettings, *, optima: Sequence[Mixture] = ()
) -> tuple[Proposal, ...]:
    """``settings.trajectories`` runs: the heuristic ones first, then random walks.

    ``optima`` are constant mixtures worth trying, such as a RegMix optimum.

    Raises:
        BadPlan: no domains, or an optimum that is not a mixture of them.
    """
    if not domains:
        raise BadPlan("there are no domains to mix: name at least one")
    for optimum in optima:
        if len(optimum) != len(domains) or min(optimum) < 0 or not math.isclose(sum(optimum), 1, abs_tol=1e-6):
            raise BadPlan(f"an optimum needs {len(domains)} weights that add up to 1")
    heuristic = [*_constants(domains, settings, optima), *_ramps(domains, settings)]
    walks = (_walk(domains, settings, number) for number in range(settings.trajectories - len(heuristic)))
    return (*heuristic, *walks)[: settings.trajectories]


def constants(
    domains: Sequence[TrajectoryDomain], shares: Sequence[float], given: Mapping[str, Sequence[float]] | None = None
) -> dict[str, Mixture]:
    """Constant mixtures by name: uniform, prior, those ``given`` and, of old and new domains, ``shares`` of replay."""
    found: dict[str, Mixture] = {"uniform": (1 / len(domains),) * len(domains)}
    found["prior"] = priors(domains)
    found |= {name: tuple(mixture) for name, mixture in (given or {}).items()}
    if _two_sided(domains):
        found |= {f"replay-{share:g}": replay(domains, share) for share in shares}
    return found


def replay(domains: Sequence[TrajectoryDomain], share: float) -> Mixture:
    """``share`` of the weight on the old domains and the rest on the new ones, by prior within each."""
    prior = priors(domains)
    sides = {new: sum(p for p, domain in zip(prior, domains, strict=True) if domain.new is new) for new in _SIDES}
    counts = {new: sum(domain.new is new for domain in domains) for new in _SIDES}
    of = {True: 1 - share, False: share}
    within = [
        p / sides[domain.new] if sides[domain.new] > 0 else 1 / counts[domain.new]
        for p, domain in zip(prior, domains, strict=True)
    ]
    return tuple(of[domain.new] * part for part, domain in zip(within, domains, strict=True))


_SIDES = (True, False)


def _constants(
    domains: Sequence[TrajectoryDomain], settings: ProposalSettings, optima: Sequence[Mixture]
) -> Iterator[Proposal]:
    given = {f"optimum-{at}": optimum for at, optimum in enumerate(optima, start=1)}
    for name, mixture in constants(domains, settings.replay, given).items():
        yield Proposal(name=name, mixtures=(mixture,) * settings.steps)


def _ramps(domains: Sequence[TrajectoryDomain], settings: ProposalSettings) -> Iterator[Proposal]:
    if not _two_sided(domains):
        return
    first, last = RAMP
    spots = [at / max(1, settings.steps - 1) for at in range(settings.steps)]
    rising = tuple(replay(domains, 1 - (first + (last - first) * spot)) for spot in spots)
    yield Proposal(name="ramp-to-new", mixtures=rising)
    yield Proposal(name="ramp-to-old", mixtures=rising[::-1])


def _two_sided(domains: Sequence[TrajectoryDomain]) -> bool:
    return {domain.new for domain in domains} == set(_SIDES)


def _walk(domains: Sequence[TrajectoryDomain], settings: ProposalSettings, number: int) -> Proposal:
    draw = random.Random(f"mixture-walk {settings.seed} {number}")  # noqa: S311 - mixtures are no secrets
    low, high = math.log(settings.concentration_low), math.log(settings.concentration_high)
    strength = math.exp(draw.uniform(low, high))
    prior = priors(domains)
    logits = _dirichlet(draw, strength, prior)
    mixtures = [_normalised(logits)]
    while len(mixtures) < settings.steps:
        fresh = draw.random() < settings.fresh
        moved = [logit + draw.gauss(0, settings.noise) for logit in logits]
        logits = _dirichlet(draw, strength, prior) if fresh else moved
        mixtures.append(_normalised(logits))
    return Proposal(name=f"walk-{number}", mixtures=tuple(mixtures))


def _dirichlet(draw: random.Random, strength: float, prior: Sequence[float]) -> list[float]:
    """Logarithms of a Dirichlet(strength * prior) draw before it is normalised.

    As :func:`strategies.mixing.dirichlet.log_gammas`, without numpy, which requests and records do not bring.
    """
    shapes = [max(strength * share, 1e-6) for share in prior]
    return [math.log(draw.gammavariate(a + 1, 1)) + math.log(1 - draw.random()) / a for a in shapes]


def _normalised(logits: Sequence[float]) -> Mixture:
    top = max(logits)
    parts = [math.exp(logit - top) for logit in logits]
    total = sum(parts)
    return tuple(part / total for part in parts)
