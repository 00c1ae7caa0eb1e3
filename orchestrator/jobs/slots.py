"""Which waiting jobs may start now: CPU slots and any k of n GPUs, by priority, without overtaking into starvation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.jobs.executors.contract import Grant


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a waiting job asks for."""

    job: int
    cpus: int
    gpus: int
    priority: int = 0


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What this machine gives to jobs in all; ``idle_gpus`` are those whose memory is free now."""

    cpus: int
    gpus: tuple[int, ...] = ()
    idle_gpus: frozenset[int] = frozenset()


def impossible(request: Request, capacity: Capacity) -> str:
    """Why the job can never start here; empty if it can. More cores than there are is no reason: it gets all."""
    if request.gpus > len(capacity.gpus):
        return f"asks for {request.gpus} GPUs where jobs may use {len(capacity.gpus)}; lower resources.gpus"
    return ""


def grants(requests: Iterable[Request], busy: Sequence[Grant], capacity: Capacity) -> dict[int, Grant]:
    """Slots for the jobs that may start now, by job id.

    Highest priority first, then oldest. What does not fit yet keeps its place: as much as it needs of each resource is
    set aside, so that smaller jobs behind it run on what is over but never hold it back for ever.
    """
    cpus = capacity.cpus - sum(grant.cpus for grant in busy)
    taken = {gpu for grant in busy for gpu in grant.gpus}
    gpus = [gpu for gpu in capacity.gpus if gpu not in taken]
    given: dict[int, Grant] = {}
    for request in sorted(requests, key=lambda one: (-one.priority, one.job)):
        if impossible(request, capacity):
            continue
        wanted = max(1, min(request.cpus, capacity.cpus))
        idle = [gpu for gpu in gpus if gpu in capacity.idle_gpus][: request.gpus]
        if wanted <= cpus and len(idle) == request.gpus:
            given[request.job] = Grant(cpus=wanted, gpus=tuple(idle))
            gpus = [gpu for gpu in gpus if gpu not in idle]
        else:
            gpus = gpus[request.gpus :]
        cpus -= wanted
    return given
