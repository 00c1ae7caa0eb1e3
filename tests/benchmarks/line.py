"""A stream's live line without a daemon: the chooser plans from measured signals, the jobs' own code carries it out.

Every candidate goes live, as with ``gate.mode: record``. A grid of hundreds of stages cannot pay a process and its
imports for every job; measure, plan and train are the daemon's, all from ``strategies``. Held-out documents of batches
older than the newest eight are not pooled but left out, and what was forgotten is measured only for a chooser that
looks at it.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.flow.circumstances import DECISIONS, LOOKED_BACK
from orchestrator.settings import GateSettings, RetentionSettings
from strategies.contract import (
    EvalFile,
    EvaluateWork,
    JobResult,
    JobSpec,
    MeasureWork,
    ModelFiles,
    Plan,
    Score,
    Signals,
    SourceFacts,
    SourceFile,
    Work,
)
from strategies.contract.circumstances import Circumstances, EarlierDecision, Forgotten, forgetting
from strategies.contract.graph import Artifact, along, order, parse_reference
from strategies.jobs.run import work
from strategies.jobs.runtime import Runtime
from strategies.planning.resolution import resolve
from strategies.settings import Json, Task, TrainingSettings
from tests.benchmarks.batches import Batch

ANSWERS = {"answer/model": "path", "answer/adapter": "adapter", "answer/bank": "bank"}
"""What a job leaves as its answer, and where a model's files name it."""
APART = RetentionSettings().evaluated_batches
"""Newest batches whose eval sets are measured."""
GATE = GateSettings()


@dataclass(frozen=True, kw_only=True)
class Version:
    """A model that is or was live, its state by role, and what was resolved when it was made."""

    number: int
    model: ModelFiles
    state: Mapping[str, Path] = field(default_factory=dict)
    settings: Json = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a stream is registered with."""

    task: Task
    model: ModelFiles
    training: TrainingSettings
    plan: Callable[[Signals], Plan]
    """The chooser with the stream's strategy."""
    anchor: Batch | None = None
    forbidden: tuple[EvalFile, ...] = ()
    """Fixed eval sets, which no batch may hold."""
    measured_tokens: int
    """Of each source that the measure job scores: fewer than in the daemon, for a stream of years has many sources."""
    watched: bool = False
    """Whether what the last versions forgot is measured before each choice, as the daemon does for every strategy."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What one decision did and cost.

    ``cpu_s`` by the kind of job: a daemon has what is scored under ``gate`` from its evaluations of earlier versions.
    """

    strategy: str
    reason: str
    values: Json
    tokens: int
    steps: int
    cpu_s: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Done:
    """A finished job."""

    result: JobResult
    folder: Path

    def place(self, role: str) -> Path:
        return self.folder / self.result.artifacts[role]


@dataclass(frozen=True, kw_only=True)
class _Files:
    """A decision's files on this disk."""

    origin: Callable[[str], Version]
    known: Mapping[str, Batch]
    fixed: tuple[EvalFile, ...]
    labels: tuple[str, ...]
    done: Mapping[str, Done]
    """The plan's jobs so far; grows."""

    def version(self, owner: str) -> ModelFiles:
        return self.origin(owner).model

    def artifact(self, artifact: Artifact) -> str:
        if artifact.is_job:
            return str(self.done[artifact.of].place(artifact.role))
        return str(self.origin(artifact.of).state[artifact.role])

    def batches(self, names: Collection[str]) -> dict[str, SourceFile]:
        return {name: one.as_old() for name, one in self.known.items() if name in names}

    def sets(self, names: Collection[str]) -> tuple[EvalFile, ...]:
        return tuple(one.heldout for one in self.known.values() if one.heldout.name in names)

    def forbidden(self) -> tuple[EvalFile, ...]:
        return (*(one.heldout for one in self.known.values()), *self.fixed)


class Line:
    """Versions of one stream, the last of them live; only the live one's files (and the base's) are kept."""

    def __init__(self, folder: Path, setting: Setting) -> None:
        self._folder = folder
        self._setting = setting
        self.base = Version(number=1, model=setting.model)
        self.live = self.base
        self._trained: list[Batch] = []
        self._seen: dict[int, int] = {}
        self._jobs = 0
        self._anchor_base: float | None = None
        self._watched: list[dict[str, Score]] = []
        self._decisions: list[EarlierDecision] = []
        shutil.rmtree(folder, ignore_errors=True)

    def retrain(self, batches: Sequence[Batch]) -> Made:
        """Decide on new batches, train, and make the result live."""
        cpu: dict[str, float] = {}
        with _clocked(cpu, "measure"):
            measured = self._measured(batches)
        with _clocked(cpu, "gate"):
            signals = self._signals(batches, measured)
        plan = self._setting.plan(signals)
        done: dict[str, Done] = {}
        files = _Files(
            origin=self._origin,
            known={one.source.name: one for one in [*self._old(), *batches]},
            fixed=self._setting.forbidden,
            labels=signals.labels,
            done=done,
        )
        with _clocked(cpu, "train"):
            for name in order(plan):
                model, todo = resolve(plan.jobs[name], files)
                done[name] = self._run(name, model, todo)
        self._promote(plan, done)
        self._trained += batches
        self._decisions.append(_promoted(len(self._decisions) + 1, plan))
        facts = [one.result.facts for one in done.values()]
        return Made(
            strategy=plan.strategy,
            reason=plan.reason,
            values={name: one.value for name, one in plan.values.items()},
            tokens=sum(int(one.get("tokens", 0)) for one in facts),
            steps=sum(int(one.get("steps", 0)) for one in facts),
            cpu_s=cpu,
        )

    def scores(self, sets: Sequence[EvalFile], *, version: Version | None = None) -> dict[str, Score]:
        """Scores of the live version (or another) by the eval set's name."""
        todo = EvaluateWork(sets=tuple(sets), training=self._setting.training)
        done = self._run("evaluate", (version or self.live).model, todo)
        shutil.rmtree(done.folder)
        return {score.name: score for score in done.result.scores}

    def exact_matches(self, file: EvalFile) -> float:
        """Share of an eval set's answers that the live version gives word for word."""
        from tests.benchmarks.exact import exact_matches

        return exact_matches(self.live.model, file, self._setting.training)

    def close(self) -> None:
        """Remove all files."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _old(self) -> list[Batch]:
        anchor = [] if self._setting.anchor is None else [self._setting.anchor]
        return [*anchor, *self._trained]

    def _measured(self, batches: Sequence[Batch]) -> JobResult:
        setting = self._setting
        sources = (*(one.source for one in batches), *(one.as_old() for one in self._old()))
        asked = MeasureWork(
            sources=sources,
            training=setting.training,
            tokens=setting.measured_tokens,
            compared_with=None if setting.anchor is None else setting.anchor.source.batch,
        )
        return self._run("measure", self.live.model, asked).result

    def _signals(self, batches: Sequence[Batch], found: JobResult) -> Signals:
        setting, anchor = self._setting, self._setting.anchor
        apart = self._apart(batches)
        sets = {one.source.batch: one.heldout.name for one in apart}
        facts = {
            one.batch: SourceFacts(
                **one.model_dump(), seen_rows=self._seen.get(one.batch, 0), eval_set=sets.get(one.batch)
            )
            for one in found.measured
        }
        known = self.live.model.labels
        taught = sorted({label for one in [*batches, *self._old()] for label in one.labels})
        measured = None if anchor is None else facts[anchor.source.batch]
        return Signals(
            task=setting.task,
            training=setting.training,
            new=tuple(facts[one.source.batch] for one in batches),
            old=tuple(facts[one.source.batch] for one in self._trained),
            anchor=None if measured is None else measured.model_copy(update={"seen_rows": measured.rows}),
            labels=(*known, *(label for label in taught if label not in known)),
            taught_labels=tuple(taught),
            parent=f"benchmark/{self.live.number}",
            parent_state=tuple(self.live.state),
            parent_settings=self.live.settings,
            anchor_rise=self._anchor_rise(),
            stage=self.live.number,
            parameters=found.parameters,
            parent_answer=tuple(role for role, name in ANSWERS.items() if getattr(self.live.model, name) is not None),
            parent_labels=known,
            circumstances=self._circumstances(batches, apart),
        )

    def _apart(self, batches: Sequence[Batch]) -> list[Batch]:
        """The anchor and the newest batches, which have eval sets of their own."""
        anchor = [] if self._setting.anchor is None else [self._setting.anchor]
        return [*anchor, *[*self._trained, *batches][-APART:]]

    def _circumstances(self, batches: Sequence[Batch], apart: Sequence[Batch]) -> Circumstances:
        known, labels = self.live.model.labels, sorted({label for one in batches for label in one.labels})
        return Circumstances(
            new_labels=tuple(label for label in labels if label not in known),
            known_labels=tuple(label for label in labels if label in known),
            arrived=sum(one.documents for one in batches),
            forgotten=self._forgotten(self._known(apart)) if self._setting.watched else (),
            decisions=tuple(self._decisions[-DECISIONS:]),
        )

    def _known(self, apart: Sequence[Batch]) -> list[EvalFile]:
        """Their sets, without those of which the live version knows no class."""
        known = set(self.live.model.labels)
        return [one.heldout for one in apart if not one.labels or known.intersection(one.labels)]

    def _forgotten(self, sets: Sequence[EvalFile]) -> tuple[Forgotten, ...]:
        """What the last live versions lost on the ``select`` halves."""
        self._watched = [*self._watched, self.scores(sets)][-LOOKED_BACK:]
        found = []
        for one in sets:
            scored = [scores[one.name] for scores in self._watched if one.name in scores]
            values = [score.value_select for score in scored if score.value_select is not None]
            if len(values) > 1:
                metric = scored[-1].metric
                tolerance = GATE.tolerance_loss if metric == "loss" else GATE.tolerance_accuracy
                found.append(forgetting(one.name, metric, values, tolerance=tolerance))
        return tuple(found)

    def _anchor_rise(self) -> float | None:
        """Relative rise of the anchor's loss from the base to the live version, on the ``select`` half."""
        if self._setting.anchor is None:
            return None
        if self._anchor_base is None:
            self._anchor_base = self._anchor_loss(self.base)
        now = self._anchor_loss(self.live)
        return None if not self._anchor_base or now is None else now / self._anchor_base - 1

    def _anchor_loss(self, version: Version) -> float | None:
        assert self._setting.anchor is not None
        found = self.scores([self._setting.anchor.heldout], version=version)
        return next((score.value_select for score in found.values()), None)

    def _origin(self, owner: str) -> Version:
        return self.base if owner == "base" else self.live

    def _promote(self, plan: Plan, done: Mapping[str, Done]) -> None:
        owners = {parse_reference(job.init).of for job in plan.jobs.values()}
        origin = self._origin("base" if "base" in owners else "live")
        answer = done[plan.result]
        files: dict[str, str | None] = {
            ANSWERS[role]: str(answer.place(role)) for role in answer.result.artifacts if role in ANSWERS
        }
        if "path" in files:
            files = {"adapter": None, **files}
        state = {
            role: one.place(role) for one in done.values() for role in one.result.artifacts if role.startswith("state/")
        }
        self._count(plan, done)
        self.live = Version(
            number=self.live.number + 1,
            model=origin.model.model_copy(update={"labels": answer.result.labels, **files}),
            state=state,
            settings={"strategy": plan.strategy, **{name: one.value for name, one in plan.values.items()}},
        )
        self._remove_all_but({one.folder for one in done.values()})

    def _count(self, plan: Plan, done: Mapping[str, Done]) -> None:
        """Rows that the answer was trained on, as the daemon's lineage has them."""
        taken: dict[tuple[int, str], dict[str, int]] = {}
        for name, one in done.items():
            for used in one.result.consumed:
                taken.setdefault((used.batch, used.role), {})[name] = used.samples
        for (batch, _), by_job in taken.items():
            self._seen[batch] = self._seen.get(batch, 0) + along(plan, by_job)

    def _remove_all_but(self, kept: set[Path]) -> None:
        model = self.live.model
        used = [Path(one) for one in (model.path, model.adapter, model.bank) if one is not None]
        for folder in self._folder.iterdir():
            if folder not in kept and not any(one.is_relative_to(folder) for one in used):
                shutil.rmtree(folder)

    def _run(self, name: str, model: ModelFiles, todo: Work) -> Done:
        """Carry a job out in this process, with the code that a job process runs."""
        self._jobs += 1
        setting = self._setting
        folder = self._folder / f"{self._jobs}-{name}"
        folder.mkdir(parents=True)
        spec = JobSpec(
            job=self._jobs,
            attempt=1,
            stream="benchmark",
            name=name,
            task=setting.task,
            seed=setting.training.seed,
            threads=1,
            model=model,
            work=todo,
        )
        with (folder / "job.log").open("w") as log, contextlib.redirect_stdout(log):
            return Done(result=work(spec, Runtime(folder)), folder=folder)


def _promoted(number: int, plan: Plan) -> EarlierDecision:
    replay = plan.values.get("replay")
    return EarlierDecision(
        decision=number,
        strategy=plan.strategy,
        choice=plan.values["choice"].value if "choice" in plan.values else None,
        replay=None if replay is None else float(replay.value),
        result="promoted",
        reason="every candidate goes live",
    )


@contextlib.contextmanager
def _clocked(spent: dict[str, float], what: str) -> Iterator[None]:
    """Add this process's CPU seconds to ``spent``."""
    began = time.process_time()
    yield
    spent[what] = spent.get(what, 0.0) + round(time.process_time() - began, 3)
