"""A finished run as an agent sees it, from what the lineage records of every run (METHODS 4.1: log them from day one).

A run that observed its domains leaves its steps itself. Any other is one step: its constant mixture, and the losses of
the version that it started from and of the version that it made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from strategies.agent.trajectories import Provenance, Trajectory, TrajectoryDomain, TrajectoryHeader
from strategies.contract import MergeTemplate, Plan, Signals, TrainTemplate
from strategies.contract.domains import by_domain
from strategies.contract.graph import parse_reference
from strategies.mixing.exact import fraction
from strategies.mixing.simplex import normalised
from strategies.parts import ReplayMixing
from strategies.planning import domains
from strategies.settings import Json
from strategies.settings.mixing import WeightedSettings


def recorded(
    plan: Plan,
    signals: Signals,
    *,
    before: Mapping[str, float],
    after: Mapping[str, float],
    environment: str,
    jobs: Mapping[str, Json],
    data: Mapping[str, str],
) -> Trajectory | None:
    """One step over the domains that data mixing would have told apart; None where they were not measured twice.

    ``before`` and ``after`` are losses by eval set, ``jobs`` the facts of the plan's jobs, ``data`` sha256 by source.
    Domains that could have been replayed and were not have weight 0: what becomes of them is worth knowing.
    """
    run = {name: job for name, job in _trained(plan) if isinstance(job.mixing, ReplayMixing)}
    sets = before.keys() & after.keys()
    found = domains.find(signals, WeightedSettings())
    if not run or not any(sets.intersection(domain.measured) for domain in found):
        return None
    rows = _rows(run.values(), signals)
    measured = {domain.name: domain.measured for domain in found}
    start, end = (by_domain({one: losses[one] for one in sets}, measured) for losses in (before, after))
    prior = domains.prior(found)
    header = TrajectoryHeader(
        environment=environment,
        domains=tuple(
            TrajectoryDomain(name=one.name, new=one.new, prior=prior[one.name], similarity=one.similarity)
            for one in found
        ),
        total=1,
        provenance=_provenance(plan, run, jobs, data),
    )
    return header.begun(tuple(start.values())).after(
        weights=list(normalised({one.name: sum(rows[source] for source in one.sources) for one in found}).values()),
        losses=tuple(end.values()),
        tokens=sum(int(jobs.get(name, {}).get("tokens", 0)) for name in run),
    )


def _trained(plan: Plan) -> Iterator[tuple[str, TrainTemplate]]:
    """The train jobs that the result stands on, each once."""
    names, seen = [plan.result], set[str]()
    while names:
        name = names.pop()
        if name in seen:
            continue
        seen.add(name)
        job = plan.jobs[name]
        if isinstance(job, TrainTemplate):
            yield name, job
        members = job.members.values() if isinstance(job, MergeTemplate) else ()
        names += [one.of for one in map(parse_reference, (job.init, *members)) if one.is_job]


def _rows(run: Iterable[TrainTemplate], signals: Signals) -> Mapping[str, float]:
    """Rows that the jobs drew of every source; new sources are one stream, so each gives by its size."""
    anchor = () if signals.anchor is None else (signals.anchor,)
    sizes = {source.name: source.rows for source in (*signals.new, *signals.old, *anchor)}
    rows: defaultdict[str, float] = defaultdict(float)
    for job in run:
        mixing = job.mixing
        assert isinstance(mixing, ReplayMixing)
        old = {name: float(fraction(weight, name)) for name, weight in mixing.old.items() if sizes.get(name)}
        share = float(fraction(mixing.share, "share")) if old else 0.0
        for part, weights in ((share, old), (1 - share, {name: float(sizes[name]) for name in mixing.new})):
            for name, weight in weights.items():
                rows[name] += job.steps * mixing.batch * part * weight / sum(weights.values())
    return rows


def _provenance(
    plan: Plan, run: Mapping[str, TrainTemplate], jobs: Mapping[str, Json], data: Mapping[str, str]
) -> Provenance:
    first = next(iter(run))
    return Provenance(
        seeds={"job": run[first].training.seed},
        settings={
            "strategy": plan.strategy,
            "jobs": {
                name: job.model_dump(mode="json", include={"schedule", "steps", "mixing"}) for name, job in run.items()
            },
        },
        data=dict(data),
        versions={name: one for name, one in jobs.get(first, {}).get("versions", {}).items() if one is not None},
    )
