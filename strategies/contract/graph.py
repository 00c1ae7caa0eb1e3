"""A plan as a graph: its references, the order of its jobs, and whether it can be carried out at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

from strategies.contract import FitTemplate, MergeTemplate, Plan, ProxyTemplate, Template, TrainTemplate
from strategies.contract.domains import batch_of
from strategies.errors import BadPlan
from strategies.parts import WeightedMixing

LIVE = "live"
VERSIONS = ("base", LIVE)
"""Names a reference may use besides the plan's own jobs: version 1, and the version the decision started from."""
MODEL, ADAPTER, BANK = ANSWERS = ("answer/model", "answer/adapter", "answer/bank")
"""What a train job leaves, one of them; an adapter or a bank stands on the model that it was trained on."""

START = "start"
"""What a merge calls the version that training started from, among models that no version is yet."""


class Artifact(NamedTuple):
    """A parsed reference: the ``role`` of an artifact and the version or job it is of."""

    of: str
    role: str

    @property
    def is_job(self) -> bool:
        return self.of not in VERSIONS


def parse_reference(reference: str) -> Artifact:
    """``@trunk/state/optimizer`` -> of ``trunk``, role ``state/optimizer``."""
    of, slash, role = reference.removeprefix("@").partition("/")
    if not (reference.startswith("@") and of and slash and role):
        raise BadPlan(f"{reference!r} is no reference; write @live/ROLE, @base/ROLE or @JOB/ROLE")
    return Artifact(of=of, role=role)


def references(job: Template) -> Iterator[Artifact]:
    """Every artifact the job reads."""
    for reference in (job.init, *_further(job)):
        if reference is not None:
            yield parse_reference(reference)


def _further(job: Template) -> tuple[str | None, ...]:
    if isinstance(job, FitTemplate):
        return job.runs
    if isinstance(job, MergeTemplate):
        return tuple(job.members.values())
    if isinstance(job, TrainTemplate):
        mixture = job.mixing.mixture if isinstance(job.mixing, WeightedMixing) else None
        return (job.optimizer, job.reference, job.mixing.cursor, mixture)
    return ()


def batches_drawn(plan: Plan) -> set[str]:
    """Names of the batches that jobs of the plan draw rows from."""
    mixings = [job.mixing for job in plan.jobs.values() if isinstance(job, TrainTemplate | ProxyTemplate)]
    return {batch_of(source) for mixing in mixings for source in mixing.sources}


def needs(plan: Plan, name: str) -> tuple[str, ...]:
    """Jobs of the plan that must succeed before job ``name`` can start."""
    return tuple(sorted({artifact.of for artifact in references(plan.jobs[name]) if artifact.is_job}))


def along(plan: Plan, taken: Mapping[str, int], name: str | None = None) -> int:
    """Rows that the answer of job ``name`` (of the plan's result unless said) was trained on, from those by job.

    Jobs that only found a mixture or were compared with are no part of it.
    """
    name = name or plan.result
    job = plan.jobs[name]
    # Siblings that are merged draw the same rows side by side: what the one that took the most of them knows of a
    # batch is what their mean knows, and their sum would count it once for each.
    before = job.members.values() if isinstance(job, MergeTemplate) else (job.init,)
    owners = [one.of for one in map(parse_reference, before) if one.is_job]
    return taken.get(name, 0) + max((along(plan, taken, owner) for owner in owners), default=0)


def order(plan: Plan) -> tuple[str, ...]:
    """Names of the plan's jobs, each after all it needs; equals stay in the plan's own order."""
    sorter = TopologicalSorter({name: needs(plan, name) for name in plan.jobs})
    try:
        return tuple(sorter.static_order())
    except CycleError as error:
        raise BadPlan(f"jobs {' → '.join(error.args[1])} wait for each other; break the cycle") from error


def validate(plan: Plan) -> None:
    """Refuse a plan whose result or references do not exist, or whose jobs wait for each other."""
    if plan.result not in plan.jobs:
        raise BadPlan(f"the plan's result is job {plan.result}, which it does not have")
    for name, job in plan.jobs.items():
        if name in VERSIONS:
            raise BadPlan(f"a job cannot be called {name}; references use that name for a version")
        for artifact in references(job):
            _check_exists(plan, name, artifact)
    order(plan)


def _check_exists(plan: Plan, name: str, artifact: Artifact) -> None:
    if not artifact.is_job:
        return
    if artifact.of not in plan.jobs:
        raise BadPlan(f"job {name} needs {artifact.of}/{artifact.role}, but the plan has no job {artifact.of}")
    owner = plan.jobs[artifact.of]
    if artifact.role not in (*(ANSWERS if isinstance(owner, TrainTemplate | MergeTemplate) else ()), *owner.state):
        raise BadPlan(
            f"job {name} needs {artifact.of}/{artifact.role}, but that job does not leave it; add it to state"
        )
