"""The merge job: several models become one, as an ordinary folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from strategies.contract import JobResult, JobSpec, MergeWork
from strategies.errors import BadPlan
from strategies.inference.names import WEIGHTS
from strategies.jobs.repair import repair
from strategies.jobs.runtime import Runtime
from strategies.jobs.workbench import Bench, open_bench
from strategies.merging.arithmetic import added
from strategies.merging.greedy import greedy_soup
from strategies.merging.methods import check_weights, maker_for, mean_change
from strategies.merging.models import Model, Shards
from strategies.merging.writing import Entry, write_tensors
from strategies.settings import Json
from strategies.settings.merging import DareMerge, GreedySoupMerge, RepairMerge, combining

SMALL_CHANGE = 0.002
"""DARE is meant for changes up to about this size (METHODS 7.1)."""
SMALL_GAP = 0.1
"""Share of a merged change's norm that an adapter may lose to its rank without a warning."""


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
    facts["warnings"] = _about_rank(facts["gaps"]["rank_gap"]) if "gaps" in facts else []
    if isinstance(combining(bench.work.method), DareMerge):
        facts["mean_change"] = {member.role: mean_change(bench.inputs, member) for member in bench.inputs.members}
        facts["warnings"] += _about_sizes(facts["mean_change"])
    fishers = {one.role: one.fisher for one in bench.inputs.members if one.fisher is not None}
    if fishers:
        facts["estimators"] = {role: fisher.estimator for role, fisher in fishers.items()}
        facts["examples"] = {role: fisher.examples for role, fisher in fishers.items()}
    return facts


def _about_rank(gap: float) -> list[str]:
    """About a merged change of which the rank of an adapter holds too little."""
    if gap <= SMALL_GAP:
        return []
    return [
        f"cut back to its rank, the merged adapter lost {gap:.2f} of the merged change's norm (rank_gap); "
        "`rekindle merge --into model` loses none, nor does a stage that merges siblings with training.tuner full"
    ]


def _about_sizes(sizes: Mapping[str, float]) -> list[str]:
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
    check_weights(bench.work.method, bench.inputs)
    soup = _Soup(bench)
    found = greedy_soup([member.role for member in bench.inputs.members], soup.score, soup.take)
    facts = bench.write(bench.out / "model", soup.mean())
    return {**facts, "alone": found.alone, "together": found.together, "kept": found.kept}


class _Mean:
    """The mean of ``count`` models: the first, and a share of the sum of how the others differ from it.

    What all have alike stays bit for bit, which a sum of models divided by their count does not give.
    """

    def __init__(self, first: Model, base: Model, differences: Callable[[str], Tensor] | None, count: int) -> None:
        self._first = first
        self._base = base
        self._differences = differences
        self._count = count

    def tensor(self, name: str) -> Tensor:
        first = self._first.tensor(name)
        return first if self._differences is None else added(first, self._differences(name) / self._count)

    def change(self, name: str) -> Tensor:
        return self.tensor(name) - self._base.tensor(name)


class _Soup:
    """The soup so far: its first model, a count, and float32 sums on disk of how the others differ from the first.

    It is never a mean of means.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._models = {member.role: member.model for member in bench.inputs.members}
        self._first: Model | None = None
        self._count = 0
        self._sum: Shards | None = None

    def mean(self) -> _Mean:
        """The mean of what was taken."""
        assert self._first is not None
        return _Mean(self._first, self._bench.inputs.base, self._sum.raw if self._sum else None, self._count)

    def score(self, role: str) -> float:
        """Mean over the eval sets of the accuracy, or of the loss below zero, of the soup with ``role`` in it."""
        trial = self._bench.out / "trial"
        first = self._first or self._models[role]
        differences = self._differences(self._first, role) if self._first else None
        self._bench.write(trial, _Mean(first, self._bench.inputs.base, differences, self._count + 1))
        found = self._bench.score(self._bench.files(trial))
        shutil.rmtree(trial)
        return sum(value if metric == "accuracy" else -value for metric, value in found.values()) / len(found)

    def take(self, role: str) -> None:
        """Put a model in for good."""
        if self._first is None:
            self._first = self._models[role]
        else:
            self._sum = self._write_sum(self._first, role)
        self._count += 1

    def _write_sum(self, first: Model, role: str) -> Shards:
        folder = self._folder(self._count + 1)
        folder.mkdir(parents=True)
        entries = [
            Entry(name=name, dtype=torch.float32, shape=first.shape(name)) for name in self._bench.inputs.numbers
        ]
        write_tensors(folder / WEIGHTS, entries, self._differences(first, role))
        shutil.rmtree(self._folder(self._count), ignore_errors=True)
        return Shards(folder, [WEIGHTS])

    def _differences(self, first: Model, role: str) -> Callable[[str], Tensor]:
        """How the models that were taken and ``role`` differ from the first, in sum."""
        model, before = self._models[role], self._sum

        def summed(name: str) -> Tensor:
            difference = model.tensor(name) - first.tensor(name)
            return difference if before is None else before.raw(name) + difference

        return summed

    def _folder(self, count: int) -> Path:
        return self._bench.runtime.directory / "scratch" / f"sum-{count}"
