"""Evidence with a known truth, and gate settings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from orchestrator.policies.evidence import Comparison, Evidence, Role, SetEvidence, Values
from orchestrator.policies.gate import judge
from orchestrator.policies.verdict import Change, Flips, GateVerdict
from orchestrator.settings import GateSettings


def losses(
    name: str = "anchor",
    documents: int = 200,
    rise: float = 0.0,
    *,
    role: Role = "old",
    kind: str = "anchor",
    noise: float = 0.03,
    best_rise: float | None = None,
    seed: int = 0,
) -> SetEvidence:
    """Documents of very different length whose loss truly rises by ``rise`` (against the best by ``best_rise``)."""
    draws = np.random.default_rng(seed)
    tokens = np.ceil(np.exp(draws.normal(5, 0.8, documents)))
    live = tokens * draws.gamma(20, 0.15, documents)
    noises = noise * draws.standard_normal(documents)
    candidate = live * (1 + rise + noises)
    best = None if best_rise is None else compared(candidate, live * (1 + rise) / (1 + best_rise), "news/1")
    return SetEvidence(
        name=name,
        kind=kind,
        role=role,
        metric="loss",
        digests=tuple(f"{name}-{seed}-{row:06d}" for row in range(documents)),
        weights=tokens,
        live=compared(candidate, live),
        best=best,
    )


def classes(before: Sequence[int], after: Sequence[int], *, role: Role = "old", name: str = "anchor") -> SetEvidence:
    """Documents that were right (1) or wrong (0) under the live version, and are under the candidate."""
    return SetEvidence(
        name=name,
        kind="anchor" if role == "old" else "batch",
        role=role,
        metric="accuracy",
        digests=tuple(f"{name}-{row:06d}" for row in range(len(before))),
        weights=np.ones(len(before)),
        live=compared(np.array(after, float), np.array(before, float)),
    )


def compared(candidate: Values, reference: Values, version: str = "news/2") -> Comparison:
    return Comparison(version=version, candidate=candidate, reference=reference)


def new(rise: float = -0.05, documents: int = 200, **changes: Any) -> SetEvidence:
    return losses("batch-3", documents, rise, role="new", kind="batch", **changes)


def verdict(*sets: SetEvidence, **settings: Any) -> GateVerdict:
    return judge(Evidence(candidate="news/3", live="news/2", sets=sets), GateSettings(**settings))


def flips(said: GateVerdict) -> Flips:
    """Flips on the first set of a verdict."""
    found = said.sets[0].flips
    assert found is not None
    return found


def bounded(change: Change) -> tuple[float, float, float]:
    """A measured change between its lower and its upper bound."""
    assert change.lower is not None
    assert change.change is not None
    assert change.upper is not None
    return change.lower, change.change, change.upper


def swapped(one: SetEvidence) -> SetEvidence:
    """The same set with candidate and live exchanged."""
    return SetEvidence(
        name=one.name, kind=one.kind, role=one.role, metric=one.metric, digests=one.digests, weights=one.weights,
        live=compared(one.live.reference, one.live.candidate),
    )  # fmt: skip
