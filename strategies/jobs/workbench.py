"""What the merge job works on: the models that it was given, and how one merge of them is written and scored."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from storage.files import sha256_file
from strategies.contract import EvaluateWork, JobSpec, MergeParent, MergeWork, ModelFiles
from strategies.errors import BadPlan, Refused
from strategies.inference.precision import Precision
from strategies.jobs.evaluate import selected
from strategies.jobs.facts import common
from strategies.jobs.importance import importance_of
from strategies.jobs.runtime import Runtime
from strategies.merging.adapters import adapters_of, write_adapter
from strategies.merging.fisher import Importance
from strategies.merging.inputs import Inputs, Member, check_finite, gather, same_tokenizer
from strategies.merging.methods import Maker, settled
from strategies.merging.models import Grown, Model, inner_of, open_model
from strategies.merging.writing import write_model
from strategies.scores import Metric
from strategies.settings import Json
from strategies.settings.merging import FisherMerge, combining


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The job, its models opened and checked, and what its method draws by lot drawn."""

    spec: JobSpec
    work: MergeWork
    runtime: Runtime
    inputs: Inputs
    into: Literal["model", "adapter"]

    @property
    def out(self) -> Path:
        return self.runtime.directory / "out"

    @property
    def labels(self) -> tuple[str, ...]:
        return self._shaped.labels if self.spec.task == "classification" else ()

    @property
    def _shaped(self) -> Model:
        """The first parent that knows most classes by itself."""
        return max((inner_of(member.model) for member in self.inputs.members), key=lambda one: len(one.labels))

    def write(self, folder: Path, maker: Maker) -> Json:
        """Write a merge into a fresh folder; returns what is known of it."""
        shutil.rmtree(folder, ignore_errors=True)
        self.runtime.enter("merging", step=0, steps=len(self.inputs.names))
        if self.into == "adapter":
            return {"gaps": write_adapter(folder, inputs=self.inputs, maker=maker, tick=self.tick).facts()}
        names, watched = self.inputs.names, _Watched(maker, self)
        sha256 = write_model(folder, shaped=self._shaped, base=self.inputs.base, names=names, tensor=watched.tensor)
        return {"sha256": sha256}

    def tick(self) -> None:
        """One more tensor is done."""
        self.runtime.step += 1
        self.runtime.check()

    def files(self, folder: Path) -> ModelFiles:
        """A written merge as a model."""
        base = self.spec.model
        if self.into == "adapter":
            return base.model_copy(update={"adapter": str(folder)})
        return base.model_copy(update={"path": str(folder), "adapter": None})

    def score(
        self, model: ModelFiles, *, within: Mapping[str, tuple[str, ...]] | None = None
    ) -> dict[str, tuple[Metric, float]]:
        """Metric and value of each of the job's eval sets that has ``select`` rows, on those.

        Raises:
            Refused: none has such a row that can be scored.
        """
        files = tuple(one.file for one in self.work.sets)
        work = EvaluateWork(sets=files, training=self.work.training)
        found = selected(self.spec.model_copy(update={"model": model}), work, self.runtime, within=within or {})
        scored = {name: (metric, value) for name, (metric, value) in found.items() if value is not None}
        if not scored:
            raise Refused("no eval set has a row of half select to choose by; wait for larger batches, or choose soup")
        return scored

    def facts(self) -> Json:
        """What every merge says about how it came to be."""
        precision = Precision(device=torch.device("cpu"), bf16=False, autocast=nullcontext)
        models = {self.work.base: self.inputs.base, **{member.role: member.model for member in self.inputs.members}}
        return {
            **common(self.spec, precision),
            "method": self.work.method.model_dump(mode="json"),
            "into": self.into,
            "weights": {member.role: member.weight for member in self.inputs.members},
            "averaged": sorted(self.inputs.free),
            "inputs": {role: {file.name: sha256_file(file) for file in model.files} for role, model in models.items()},
        }


class _Watched:
    """A maker that shows its progress, heeds a stop, and takes what is no floating-point number from the base."""

    def __init__(self, maker: Maker, bench: Bench) -> None:
        self._maker = maker
        self._bench = bench
        self._numbers = frozenset(bench.inputs.numbers)

    def tensor(self, name: str) -> Tensor:
        self._bench.tick()
        if name in self._numbers:
            merged = self._maker.tensor(name)
            check_finite(self._bench.inputs, name, merged)
            return merged
        base, members = self._bench.inputs.base, self._bench.inputs.members
        return (base if base.has(name) else members[0].model).raw(name)


def open_bench(spec: JobSpec, work: MergeWork, runtime: Runtime) -> Bench:
    """Open and check all models of a job.

    Raises:
        BadPlan: roles or eval sets are named twice.
        Refused: the models cannot be merged.
    """
    runtime.enter("checking models")
    _unique([parent.role for parent in work.parents], "parents")
    _unique([one.file.name for one in work.sets], "eval sets")
    same_tokenizer(spec.model, [(parent.role, parent.model) for parent in work.parents])
    members = [
        Member(
            role=parent.role,
            model=open_model(parent.model),
            weight=parent.weight,
            fisher=_fisher(spec, work, parent, runtime),
        )
        for parent in work.parents
    ]
    base = _base(spec, members)
    inputs = gather(base, members, task=spec.task, copy_lone=work.method.kind == "fisher")
    if work.into == "adapter":
        adapters_of(inputs)
    work = work.model_copy(update={"method": settled(work.method, inputs)})
    return Bench(spec=spec, work=work, runtime=runtime, inputs=inputs, into=work.into)


def _fisher(spec: JobSpec, work: MergeWork, parent: MergeParent, runtime: Runtime) -> Importance | None:
    method = combining(work.method)
    if not isinstance(method, FisherMerge):
        return None
    folder = runtime.directory / "scratch" / f"fisher-{parent.role}"
    return importance_of(spec, parent, folder, runtime, settings=method, training=work.training)


def _base(spec: JobSpec, members: list[Member]) -> Model:
    """The base; a classifier's older version is read with the candidate's rows for the classes it lacks."""
    base, first = open_model(spec.model), members[0].model
    grows = len(members) == 1 and base.labels and len(first.labels) > len(base.labels)
    return Grown(base, [first]) if grows and not isinstance(first, Grown) else base


def _unique(names: list[str], what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadPlan(f"two {what} are called {twice[0]}; give each a name of its own")
