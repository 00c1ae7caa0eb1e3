"""The probe job: short train runs in rounds, scored on one part of the ``select`` documents, judged on the other."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage.files import write_atomic
from strategies.contract import (
    EvaluateWork,
    JobResult,
    JobSpec,
    ModelFiles,
    ProbeWork,
    TrainTemplate,
    TrainWork,
    TrialStart,
)
from strategies.contract.probe import ProbeResult, Trial, survivors, winner
from strategies.errors import Refused
from strategies.jobs.evaluate import Parts, selected_parts
from strategies.jobs.runtime import Runtime, say
from strategies.jobs.train import train
from strategies.scores import worsening
from strategies.settings import Json
from strategies.training.data import cut

STATE = "checkpoints/trials.json"
"""Finished trials; in ``checkpoints`` so that a later attempt is given this directory."""


def probe(spec: JobSpec, work: ProbeWork, runtime: Runtime) -> JobResult:
    """Run the rounds; the fact ``probe`` is a :class:`ProbeResult`."""
    runtime.enter("cutting slices")
    folder = runtime.directory / "slices"
    sources = tuple(cut(one, spec.task, folder, documents=work.slices[one.name]) for one in work.sources)
    bench = _Bench(spec, work.model_copy(update={"sources": sources}), runtime)
    bench.recall()
    before = bench.before()
    left = tuple(work.trials)
    for number, size in enumerate(work.sizes):
        if number:
            scores = {one.candidate: one.score for one in bench.trials if one.round == number - 1}
            left = survivors(scores, count=size, incumbent=work.incumbent)
        for label in left:
            bench.run(number, label)
    result = _result(bench, [one for one in bench.trials if one.round == len(work.sizes) - 1], before)
    return JobResult(kind="probe", facts={"probe": result.model_dump(mode="json")})


def _result(bench: _Bench, finalists: list[Trial], before: Parts) -> ProbeResult:
    judged = {one.candidate: one.judged for one in finalists if one.judged is not None}
    scores = judged if len(judged) == len(finalists) else {one.candidate: one.score for one in finalists}
    part = (
        "documents that no round had looked at" if scores is judged else "the rounds' own documents, for want of more"
    )
    chosen = winner(scores, incumbent=bench.work.incumbent)
    others = ", ".join(f"{name} {value:+.2%}" for name, value in scores.items() if name != chosen)
    return ProbeResult(
        job=bench.spec.job,
        chosen=chosen,
        reason=f"of {len(bench.work.trials)} short runs {chosen} scored best on {part}: {scores[chosen]:+.2%}"
        f" against {others}",
        budget_steps=sum(one.steps for one in bench.trials),
        trials=tuple(bench.trials),
        before={name: value for name, (_, value, _) in before.items() if value is not None},
    )


@dataclass
class _Bench:
    """The job, and what is done of it."""

    spec: JobSpec
    work: ProbeWork
    runtime: Runtime
    trials: list[Trial] = field(default_factory=list)
    _before: Parts = field(default_factory=dict)

    def recall(self) -> None:
        """Take over what an earlier attempt has finished."""
        for folder in self.spec.resume_from:
            try:
                found = json.loads((Path(folder) / STATE).read_bytes())
            except (OSError, ValueError):
                continue
            self.trials = [Trial.model_validate(one) for one in found["trials"]]
            self._before = {name: tuple(values) for name, values in found["before"].items()}
            return

    def before(self) -> Parts:
        """Both parts of each set under the live version."""
        if not self._before:
            self._before = self._scored(self.spec.model)
            self._remember()
        if not any(value is not None for _, value, _ in self._before.values()):
            raise Refused("no eval set has a select document that could be scored; there is nothing to probe with")
        return self._before

    def run(self, number: int, label: str) -> None:
        """Train and score one candidate, unless that is done."""
        if any((one.round, one.candidate) == (number, label) for one in self.trials):
            return
        template = self.work.trials[label][number]
        name = f"{number + 1}-{label.replace('/', '-')}"
        folder = self.runtime.directory / "trials" / name
        folder.mkdir(parents=True, exist_ok=True)
        say(f"round {number + 1}: {label}, {template.steps} steps")
        with self.runtime.working_in(folder):
            trained = train(self._trial_spec(name, label), self._train_work(template, label), self.runtime)
        after = self._scored(self._model(folder, trained))
        self.trials.append(self._trial(number, label, template, trained, after))
        self._remember()
        shutil.rmtree(folder)

    def _trial(self, number: int, label: str, template: TrainTemplate, trained: JobResult, after: Parts) -> Trial:
        last = number == len(self.work.sizes) - 1
        score = self._score(after, part=1)
        if score is None:
            raise Refused("no eval set could be scored before and after a short run")
        return Trial(
            round=number,
            candidate=label,
            steps=template.steps,
            tokens=int(trained.facts.get("tokens", 0)),
            score=score,
            judged=self._score(after, part=2) if last else None,
            sets={name: values[1] for name, values in after.items() if values[1] is not None},
        )

    def _score(self, after: Parts, *, part: int) -> float | None:
        """Mean change of the new sets plus that of the older ones; None without a set to go by."""
        changes: dict[bool, list[float]] = {True: [], False: []}
        for name, start in self._before.items():
            first, now = start[part], after[name][part]
            if first is not None and now is not None:
                changes[name in self.work.new].append(worsening(start[0], float(first), float(now)))
        known = [sum(found) / len(found) for found in changes.values() if found]
        total = sum(known)
        return total if known and math.isfinite(total) else (None if not known else math.inf)

    def _scored(self, model: ModelFiles) -> Parts:
        spec = self.spec.model_copy(update={"model": model})
        work = EvaluateWork(sets=self.work.sets, training=self.work.training)
        within = {one.name: self.work.known for one in self.work.sets if one.name not in self.work.new}
        return selected_parts(spec, work, self.runtime, documents=self.work.documents, within=within)

    def _start(self, label: str) -> TrialStart:
        return next(one for one in self.work.starts if one.candidate == label)

    def _trial_spec(self, name: str, label: str) -> JobSpec:
        earlier = tuple(str(Path(folder) / "trials" / name) for folder in self.spec.resume_from)
        return self.spec.model_copy(update={"resume_from": earlier, "model": self._start(label).model})

    def _train_work(self, template: TrainTemplate, label: str) -> TrainWork:
        sources = tuple(
            one.model_copy(update={"role": "new" if one.name in template.mixing.new else "old"})
            for one in self.work.sources
            if one.name in template.mixing.sources
        )
        optimizer = self._start(label).optimizer
        return TrainWork(template=template, sources=sources, forbidden=self.work.forbidden, optimizer=optimizer)

    def _model(self, folder: Path, trained: JobResult) -> ModelFiles:
        made: dict[str, Any] = {
            role.removeprefix("answer/"): str(folder / path)
            for role, path in trained.artifacts.items()
            if role.startswith("answer/")
        }
        changes = {"path": made["model"], "adapter": None} if "model" in made else made
        return self.spec.model.model_copy(update=changes)

    def _remember(self) -> None:
        path = self.runtime.directory / STATE
        path.parent.mkdir(exist_ok=True)
        found: Json = {"trials": [one.model_dump(mode="json") for one in self.trials], "before": self._before}
        write_atomic(path, json.dumps(found).encode())
