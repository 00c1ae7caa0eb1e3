"""The merge job: several models become one, as an ordinary folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from strategies.contract import JobResult, JobSpec, MergeWork
from strategies.errors import BadPlan
from strategies.jobs.repair import repair
from strategies.jobs.runtime import Runtime
from strategies.jobs.workbench import Bench, open_bench
from strategies.merging.greedy import greedy_soup
from strategies.merging.methods import maker_for, mean_change
from strategies.merging.models import WEIGHTS, Shards
from strategies.merging.settings import DareMerge, GreedySoupMerge, RepairMerge, combining
from strategies.merging.writing import Entry, write_tensors
from strategies.settings import Json

SMALL_CHANGE = 0.002
"""DARE is meant for changes up to about this size (METHODS 7.1)."""


def merge(spec: JobSpec, work: MergeWork, runtime: Runtime) -> JobResult:
    """Merge and leave ``out/model`` or ``out/adapter``; a repair that finds nothing leaves neither."""
    bench = open_bench(spec, work, runtime)
    if isinstance(work.method, RepairMerge):
        made, facts = repair(bench, work.method)
    elif isinstance(work.method, GreedySoupMerge):
        made, facts = True, _greedy(bench)
    else:
        made, facts = True, _simple(bench)
    shutil.rmtree(runtime.directory / "scratch", ignore_errors=True)
    return JobResult(
        kind="merge",
        artifacts={f"answer/{bench.into}": f"out/{bench.into}"} if made else {},
        labels=bench.labels,
        facts={**bench.facts(), **facts},
    )


def _simple(bench: Bench) -> Json:
    bench.runtime.enter("measuring changes")
    facts = bench.write(bench.out / bench.into, maker_for(bench.work.method, bench.inputs))
    if isinstance(combining(bench.work.method), DareMerge):
        sizes = {member.role: mean_change(bench.inputs, member) for member in bench.inputs.members}
        facts |= {"mean_change": sizes, "warnings": _warnings(sizes)}
    fishers = {one.role: one.fisher for one in bench.inputs.members if one.fisher is not None}
    if fishers:
        facts["estimators"] = {role: fisher.estimator for role, fisher in fishers.items()}
        facts["examples"] = {role: fisher.examples for role, fisher in fishers.items()}
    return facts


def _warnings(sizes: Mapping[str, float]) -> list[str]:
    """About parents whose changes are larger than DARE is meant for."""
    return [
        f"dare is for changes of up to {SMALL_CHANGE:g} in the mean, and those of {role} are {size:.2g}; "
        "choose ties or pcb, or a smaller drop"
        for role, size in sizes.items()
        if size > SMALL_CHANGE
    ]


def _greedy(bench: Bench) -> Json:
    if bench.into == "adapter":
        raise BadPlan("greedy-soup scores full models; merge into a model")
    if not bench.work.sets:
        raise BadPlan("greedy-soup chooses by eval sets; name at least one")
    if any(member.weight != 1 for member in bench.inputs.members):
        raise BadPlan("greedy-soup counts its parents alike; leave their weights out")
    soup = _Soup(bench)
    found = greedy_soup([member.role for member in bench.inputs.members], soup.score, soup.take)
    facts = bench.write(bench.out / "model", soup)
    return {**facts, "alone": found.alone, "together": found.together, "kept": found.kept}


class _Soup:
    """The soup so far, as a float32 sum on disk and a count: never a mean of means."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._models = {member.role: member.model for member in bench.inputs.members}
        self._count = 0
        self._sum: Shards | None = None

    def tensor(self, name: str) -> Tensor:
        """The mean of what was taken."""
        assert self._sum is not None
        return self._sum.raw(name) / self._count

    def change(self, name: str) -> Tensor:
        return self.tensor(name) - self._bench.inputs.base.tensor(name)

    def score(self, role: str) -> float:
        """Mean over the eval sets of the accuracy, or of the loss below zero, of the soup with ``role`` in it."""
        trial = self._bench.out / "trial"
        self._bench.write(trial, _Together(self._with(role), self._count + 1, self))
        found = self._bench.score(self._bench.files(trial))
        shutil.rmtree(trial)
        return sum(value if metric == "accuracy" else -value for metric, value in found.values()) / len(found)

    def take(self, role: str) -> None:
        """Add a model to the sum."""
        folder = self._folder(self._count + 1)
        folder.mkdir(parents=True)
        model = self._models[role]
        entries = [
            Entry(name=name, dtype=torch.float32, shape=model.shape(name)) for name in self._bench.inputs.numbers
        ]
        write_tensors(folder / WEIGHTS, entries, self._with(role))
        self._sum = Shards(folder, [WEIGHTS])
        shutil.rmtree(self._folder(self._count), ignore_errors=True)
        self._count += 1

    def _with(self, role: str) -> Callable[[str], Tensor]:
        model, before = self._models[role], self._sum
        return lambda name: model.tensor(name) if before is None else before.raw(name) + model.tensor(name)

    def _folder(self, count: int) -> Path:
        return self._bench.runtime.directory / "scratch" / f"sum-{count}"


class _Together:
    """The mean of a soup that is only tried."""

    def __init__(self, summed: Callable[[str], Tensor], count: int, soup: _Soup) -> None:
        self._summed = summed
        self._count = count
        self.change = soup.change

    def tensor(self, name: str) -> Tensor:
        return self._summed(name) / self._count
