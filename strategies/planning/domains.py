"""The domain space of a stage: which sources make which domain, what measures it, and its first weight."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from strategies.contract import ClassFacts, Signals, SourceFacts
from strategies.contract.domains import part
from strategies.errors import BadPlan
from strategies.mixing.exact import decimals, rounded
from strategies.mixing.simplex import normalised
from strategies.planning import share
from strategies.settings.mixing import MOST_DOMAINS, SkillItSettings, WeightedSettings

EARLIER = "earlier"
"""The domain of all batches whose own eval set is no longer kept apart."""

SMALLER = "smaller"
"""The domain of the smallest of a decision's batches, where they are more than can be mixed one by one."""

NEW = "new"
"""What settings may call the domains of the decision's own batches, whose names differ from stage to stage."""

_NAMES = {
    True: (
        re.compile(rf"{NEW}|{EARLIER}|{SMALLER}|anchor|batch-\d+"),
        f"{NEW}, {EARLIER}, {SMALLER}, anchor and batch-N",
    ),
    False: (re.compile(rf"{NEW}|(new|old)/.+"), f"{NEW}, new/CLASS and old/CLASS"),
}
"""Names that a domain may have and how they are said, by whether batches are the domains."""

MOST_APART = MOST_DOMAINS // 2 - 1
"""New batches, and old ones, that are domains of their own where all together would be too many."""

TOLERANCE = 1e-6
"""By how much a sum of weights may miss 1."""


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One domain of a stage."""

    name: str
    new: bool
    """Of the decision's own batches: what the training is for."""
    sources: tuple[str, ...]
    measured: tuple[str, ...]
    tokens: int
    similarity: float
    """To what is new; of several sources the mean, by tokens."""
    seen: int
    """Rows that were seen of it: what replay weighs old sources by."""


def find(signals: Signals, settings: WeightedSettings) -> tuple[Domain, ...]:
    """The domains that have rows, new ones first; raises BadPlan where they are none or too many."""
    found = _batches(signals) if settings.domains.by == "batch" else _classes(signals)
    if not any(domain.new for domain in found):
        raise BadPlan("there are no rows to train on; wait for more data")
    if len(found) > MOST_DOMAINS:
        raise BadPlan(
            f"{len(found)} domains are too many to mix; the most are {MOST_DOMAINS}: name fewer in the column, or set"
            " mixing.domains.by to batch"
        )
    return found


def weights(domains: tuple[Domain, ...], settings: WeightedSettings, *, replay: float) -> dict[str, Fraction]:
    """The first weight of every domain; ``replay`` is the share of old data where the weights are replay's."""
    if isinstance(settings.first, dict):
        return rounded(_given(domains, settings.first), domains[0].name)
    if settings.first == "uniform":
        return rounded({domain.name: 1 / len(domains) for domain in domains}, domains[0].name)
    if settings.first == "prior":
        return rounded(prior(domains), domains[0].name)
    sides = {new: [domain for domain in domains if domain.new is new] for new in (True, False)}
    shares = {True: 1 - replay if sides[False] else 1.0, False: replay}
    return rounded(
        {
            domain.name: shares[new] * weight
            for new, side in sides.items()
            for domain, weight in zip(side, _within(side), strict=True)
        },
        domains[0].name,
    )


def prior(domains: Iterable[Domain]) -> dict[str, float]:
    """Every domain's share of all tokens."""
    return normalised({domain.name: float(max(1, domain.tokens)) for domain in domains})


def spelled(found: dict[str, Fraction]) -> dict[str, str]:
    """Weights as decimal strings."""
    return {name: decimals(weight) for name, weight in found.items()}


def _within(side: list[Domain]) -> list[float]:
    return list(normalised({domain.name: float(max(1, domain.seen)) for domain in side}).values()) if side else []


def called(domains: Iterable[Domain], name: str) -> tuple[str, ...]:
    """The domains that a name in the settings means now: none where such a domain may come again."""
    return tuple(domain.name for domain in domains if name == domain.name or (name == NEW and domain.new))


def absent(domains: tuple[Domain, ...], settings: WeightedSettings) -> list[str]:
    """Names in the settings that mean no domain now, and are left out."""
    return sorted(name for name in _asked(settings) if not called(domains, name))


def check_names(settings: WeightedSettings) -> None:
    """Refuse a name in the settings that no domain ever has; raises BadPlan."""
    names, which = _NAMES[settings.domains.by == "batch"]
    for name in sorted(_asked(settings)):
        if not names.fullmatch(name):
            raise BadPlan(f"mixing names {name}, which is no domain; {which} are")


def _asked(settings: WeightedSettings) -> set[str]:
    asked = set(settings.weights) if isinstance(settings.weights, dict) else set[str]()
    if isinstance(settings.reweight, SkillItSettings):
        graph = settings.reweight.graph or {}
        asked |= {*settings.reweight.targets, *graph, *(name for row in graph.values() for name in row)}
    return asked


def _given(domains: tuple[Domain, ...], asked: dict[str, float]) -> dict[str, float]:
    """The weights asked for; those of domains that are not there now go to the others by their weights."""
    found = _spread(domains, asked)
    left = [domain.name for domain in domains if domain.name not in found]
    total, there = min(1.0, sum(asked.values())), sum(found.values())
    if asked and not found:
        raise BadPlan(f"none of the domains that mixing.weights names is there now; {NEW} names the new data always")
    if not left and not there:
        raise BadPlan("mixing.weights leaves no domain that is there now any weight; give one of them some")
    if not left and abs(there - total) <= TOLERANCE < abs(total - 1):
        raise BadPlan(f"mixing.weights names every domain but sums to {total:g}, not 1")
    return normalised({**found, **{name: (1 - total) / len(left) for name in left}})


def _spread(domains: tuple[Domain, ...], asked: dict[str, float]) -> dict[str, float]:
    """Weights by domain; what is asked for all that is new is shared by tokens among what has no weight of its own."""
    found: dict[str, float] = {}
    for name, weight in asked.items():
        meant = {one for one in called(domains, name) if one == name or one not in asked}
        shares = prior(domain for domain in domains if domain.name in meant) if meant else {}
        found |= {one: weight * part for one, part in shares.items()}
    return found


def _batches(signals: Signals) -> tuple[Domain, ...]:
    """Each batch with an eval set of its own, the anchor, and all older batches together.

    Where these are too many, the smallest of the old ones count as older too, and the smallest new ones are together.
    """
    new = _by_size(source for source in signals.new if source.rows)
    old = share.replayable(signals)
    apart = _by_size((source for source in old if source.eval_set is not None), first=signals.anchor)
    rest = [source for source in old if source.eval_set is None]
    if len(new) + len(apart) + bool(rest) > MOST_DOMAINS:
        new, smaller = new[:MOST_APART], new[MOST_APART:]
        apart, rest = apart[:MOST_APART], [*rest, *apart[MOST_APART:]]
    else:
        smaller = []
    alone = {source.name for source in (*new, *apart)}
    return (
        *(_alone(source, new=True) for source in signals.new if source.name in alone),
        *_together(SMALLER, smaller, new=True),
        *(_alone(source, new=False) for source in old if source.name in alone),
        *_together(EARLIER, rest, new=False, pools=signals.pools),
    )


def _by_size(sources: Iterable[SourceFacts], *, first: SourceFacts | None = None) -> list[SourceFacts]:
    return sorted(sources, key=lambda one: (one != first, -one.tokens, one.name))


def _together(
    name: str, sources: Sequence[SourceFacts], *, new: bool, pools: tuple[str, ...] = ()
) -> tuple[Domain, ...]:
    """Several sources as one domain, if there are any."""
    made = Domain(
        name=name,
        new=new,
        sources=tuple(source.name for source in sources),
        measured=(*pools, *(source.eval_set for source in sources if source.eval_set is not None)),
        tokens=sum(source.tokens for source in sources),
        similarity=_mean([(source.similarity, source.tokens) for source in sources]),
        seen=sum(source.rows if new else source.seen_rows or source.rows for source in sources),
    )
    return (made,) if sources else ()


def _alone(source: SourceFacts, *, new: bool) -> Domain:
    return Domain(
        name=source.name,
        new=new,
        sources=(source.name,),
        measured=() if source.eval_set is None else (source.eval_set,),
        tokens=source.tokens,
        similarity=source.similarity,
        seen=source.rows if new else source.seen_rows or source.rows,
    )


def _classes(signals: Signals) -> tuple[Domain, ...]:
    """Each class of documents among the new batches, and among the old ones."""
    old = share.replayable(signals)
    sides = {"new": signals.new, "old": old}
    if not any(source.classes for source in signals.new):
        raise BadPlan("the documents' classes were not measured; ask for the retrain again")
    return tuple(domain for side, sources in sides.items() for domain in _side(side, sources, signals.pools))


def _side(side: str, sources: tuple[SourceFacts, ...], pools: tuple[str, ...]) -> list[Domain]:
    found: dict[str, list[tuple[str, ClassFacts]]] = defaultdict(list)
    for source in sources:
        for one in source.classes:
            if one.rows:
                found[one.name].append((part(source.name, one.name), one))
    sets = [source.eval_set for source in sources if source.eval_set is not None]
    sets += pools if side == "old" else ()
    return [
        Domain(
            name=f"{side}/{name}",
            new=side == "new",
            sources=tuple(source for source, _ in parts),
            measured=tuple(part(one, name) for one in sets),
            tokens=sum(one.tokens for _, one in parts),
            similarity=_mean([(one.similarity, one.tokens) for _, one in parts]),
            seen=sum(one.rows for _, one in parts),
        )
        for name, parts in sorted(found.items())
    ]


def _mean(weighted: Sequence[tuple[float, int]]) -> float:
    total = sum(weight for _, weight in weighted)
    return sum(value * weight for value, weight in weighted) / total if total else 0.0
