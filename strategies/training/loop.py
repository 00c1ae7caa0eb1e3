"""The training loop: draw, loss, gradient, guarded step; checkpoints beside it; hooks of the seams in it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from strategies.errors import BadPlan, Diverged, StrategyError
from strategies.parts import Schedule
from strategies.schedule import factor
from strategies.settings import Json, TrainingSettings
from strategies.training import randomness
from strategies.training.batches import Collator, Draw, Feed, Mixing, Observing
from strategies.training.checkpoint import Checkpoint, CheckpointStore, copied
from strategies.training.ledger import Ledger, LossLog
from strategies.training.objective import Objective
from strategies.training.parameters import moments, put_moments
from strategies.training.seams import Part, PartState, Run, overrides
from strategies.training.update import Reading, apply, finite

FORGIVEN, AMONG = 2, 1000
"""So many of so many steps in a row may turn out not finite before the job gives up: stray ones are left out for as
long as a job runs, but not one after another, nor one step again and again."""


class Watch(Protocol):
    """Where the loop shows how far it is, and where it sees that it should stop."""

    step: int
    tokens: int
    loss: float | None
    lr: float | None
    stop_reason: str | None

    def check(self) -> None: ...


@dataclass(kw_only=True)
class Progress:
    """What the loop has done so far, all attempts together."""

    ledger: Ledger
    log: LossLog
    mixing: Json
    tokens: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    skipped: list[int] = field(default_factory=list)
    """Steps that were not finite."""
    resumed_from: list[int] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class _Applied:
    """A step whose outcome may still be on its way."""

    draw: Draw
    lr: float
    outcome: Reading | float | None


class Loop:
    """Trains ``run`` for ``steps`` optimizer steps; interrupted at any step, :meth:`train` goes on exactly."""

    def __init__(
        self,
        run: Run,
        *,
        objective: Objective,
        parts: Mapping[str, Part],
        mixing: Mixing,
        collate: Collator,
        schedule: Schedule,
        settings: TrainingSettings,
        steps: int,
        store: CheckpointStore,
        watch: Watch,
    ) -> None:
        self.run = run
        self.objective = objective
        self.parts = {"objective": objective, **parts}
        self.mixing = mixing
        self.collate = collate
        self.schedule = schedule
        self.settings = settings
        self.steps = steps
        self.store = store
        self.watch = watch
        self.progress = Progress(ledger=Ledger(collate.sources), log=LossLog(steps), mixing=mixing.state_dict())
        self._after_step = [part for part in self.parts.values() if overrides(part, "after_step")]
        self._saved_at = time.monotonic()

    def train(self) -> Progress:
        """Run to the last step; raises what ``watch.check`` raises after writing a checkpoint."""
        self.resume()
        for part in self.parts.values():
            part.begin(self.run)
        self.run.model.train()
        clock = _Clock(self.progress)
        try:
            self._observe()
            while self.run.step < self.steps:
                if not self._steps():
                    self._go_back()
                self._observe()
        finally:
            clock.stop()
            self.store.wait()
        for part in self.parts.values():
            part.end(self.run)
        if not finite(self.run.parameters.values()):
            raise Diverged("the trained weights are not finite; nothing is published: lower training.learning_rate")
        return self.progress

    def resume(self) -> bool:
        """Go on from the newest sound checkpoint; False if there is none."""
        found = self.store.load()
        if found is None:
            return False
        self._restore(found)
        self.progress.resumed_from.append(found.step)
        return True

    def save(self) -> None:
        """Start writing a checkpoint of the step just settled."""
        self.store.save(self._captured())
        self._saved_at = time.monotonic()

    def _steps(self) -> bool:
        """Steps until losses are due or the last; False if weights are not finite and a checkpoint is needed."""
        pin = self.run.precision.device.type == "cuda"
        late: _Applied | None = None
        with Feed(self.mixing, self.collate, first=self.run.step + 1, last=self._last(), pin=pin) as feed:
            for draw in feed:
                applied = self._one(draw)
                waiting = [step for step in (late, applied) if step is not None]
                # On a GPU the newest step's outcome is still on its way; it is waited for only before a checkpoint.
                late = waiting.pop() if isinstance(applied.outcome, Reading) else None
                if not all(self._settle(step) for step in waiting):
                    return False
                if self.watch.stop_reason is not None or self._is_due(draw.step):
                    if late is not None and not self._settle(late):
                        return False
                    late = None
                    self._pause()
            return late is None or self._settle(late)

    def _last(self) -> int:
        """The step up to which rows may be drawn now: those after it may depend on losses that are not known yet."""
        every = self._observe_every
        return self.steps if every is None else min(self.steps, (self.run.step // every + 1) * every)

    @property
    def _observe_every(self) -> int | None:
        return self.mixing.observe_every if isinstance(self.mixing, Observing) else None

    def _observe(self) -> None:
        """Show the mixing the losses that are due, once; after a restart also those that the checkpoint came before."""
        mixing, step = self.mixing, self.run.step
        if not isinstance(mixing, Observing) or mixing.observe_every is None:
            return
        if step % mixing.observe_every or mixing.observed == step:
            return
        if self.run.losses is None:
            raise BadPlan("the mixing follows losses but the job has no eval sets to measure; give it select sets")
        streams = randomness.capture()
        mixing.observe(step, self.run.losses())
        randomness.restore(*streams)
        self.run.model.train()
        self.progress.mixing = self.mixing.state_dict()

    def _one(self, draw: Draw) -> _Applied:
        lr = self._set_rate(draw.step)
        loss = self._gradients(draw)
        outcome = apply(self.run, loss, max_grad_norm=self.settings.max_grad_norm)
        self.run.step = draw.step
        if outcome is not None:
            for part in self._after_step:
                part.after_step(self.run, draw.step)
        return _Applied(draw=draw, lr=lr, outcome=outcome)

    def _set_rate(self, step: int) -> float:
        share = factor(self.schedule, step)
        for group in self.run.optimizer.param_groups:
            group["lr"] = group["base_lr"] * share
        return self.schedule.lr * share

    def _gradients(self, draw: Draw) -> Tensor:
        while True:
            micro = [part for batch in draw.micro for part in batch.split(self.collate.micro)]
            try:
                return self.objective.gradients(self.run, micro)
            except torch.OutOfMemoryError as error:
                if self.collate.micro == 1:
                    raise StrategyError("out of memory with one row at a time; lower training.max_length") from error
            # Outside the handler, so that the traceback no longer holds the tensors of the failed pass.
            self._halve()

    def _halve(self) -> None:
        self.collate.micro = max(1, self.collate.micro // 2)
        self.run.optimizer.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        print(f"out of memory: {self.collate.micro} rows at a time from now on, same rows in a step", flush=True)

    def _settle(self, applied: _Applied) -> bool:
        """Book a step whose outcome is known; False if a checkpoint has to be restored."""
        outcome = applied.outcome
        loss = outcome.loss() if isinstance(outcome, Reading) else outcome
        draw = applied.draw
        self.progress.mixing = draw.mixing
        if loss is None:
            return self._forgive(draw.step)
        self.progress.ledger.mark(draw.rows)
        self.progress.log.add(draw.step, loss, applied.lr)
        self.progress.tokens += sum(batch.tokens for batch in draw.micro)
        watch = self.watch
        watch.step, watch.tokens, watch.loss, watch.lr = draw.step, self.progress.tokens, loss, applied.lr
        return True

    def _forgive(self, step: int) -> bool:
        """A step that is not finite was not applied: sound weights go on; False if the weights are not sound."""
        skipped = self.progress.skipped
        skipped.append(step)
        lately = sum(1 for one in skipped if one > step - AMONG)
        if lately > FORGIVEN:
            raise Diverged(
                f"loss or gradient of step {step} is not finite, {lately} times within {AMONG} steps; "
                "lower training.learning_rate or look at the data"
            )
        if not finite(self.run.parameters.values()):
            return False
        print(f"step {step} skipped: loss or gradient is not finite", flush=True)
        return True

    def _go_back(self) -> None:
        """To the newest sound checkpoint, remembering which steps were not finite."""
        at, skipped = self.run.step, self.progress.skipped
        self.store.wait()
        if not self.resume():
            raise Diverged(f"weights are not finite at step {at} and there is no checkpoint to go back to")
        self.progress.skipped = skipped
        print(f"weights are not finite at step {at}; back to step {self.run.step}", flush=True)

    def _is_due(self, step: int) -> bool:
        if self.settings.save_steps is not None:
            return step % self.settings.save_steps == 0
        return time.monotonic() - self._saved_at >= self.settings.save_seconds and not self.store.busy

    def _pause(self) -> None:
        """Write a checkpoint; wait for it and stop if asked to."""
        if self.watch.stop_reason is None and self.run.step == self.steps:
            return
        self.save()
        if self.watch.stop_reason is not None:
            self.store.wait()
            self.watch.check()

    def _captured(self) -> Checkpoint:
        states = {name: part.state_dict() for name, part in self.parts.items() if overrides(part, "state_dict")}
        random_values, random_tensors = randomness.capture()
        progress = self.progress
        values: Json = {
            "mixing": progress.mixing,
            "random": random_values,
            "samples": dict(progress.ledger.samples),
            "log": progress.log.to_json(),
            "counts": [progress.tokens, progress.wall_s, progress.cpu_s, self.collate.micro],
            "skipped": list(progress.skipped),
            "resumed_from": list(progress.resumed_from),
            "parts": {name: state.values for name, state in states.items()},
        }
        groups = {
            "weights": copied(self.run.parameters),
            "optimizer": copied(moments(self.run.optimizer, self.run.parameters)),
            "random": random_tensors,
            "consumed": progress.ledger.tensors(),
            **{f"part-{name}": copied(state.tensors) for name, state in states.items()},
        }
        return Checkpoint(step=self.run.step, values=values, groups=groups)

    def _restore(self, found: Checkpoint) -> None:
        values, groups = found.values, found.groups
        with torch.no_grad():
            for name, parameter in self.run.parameters.items():
                parameter.copy_(groups["weights"][name])
        put_moments(self.run.optimizer, self.run.parameters, groups["optimizer"])
        self.mixing.load_state_dict(values["mixing"])
        randomness.restore(values["random"], dict(groups["random"]))
        progress = self.progress
        progress.mixing = values["mixing"]
        progress.ledger.restore(values["samples"], groups["consumed"])
        progress.log.restore(values["log"])
        progress.tokens, progress.wall_s, progress.cpu_s, micro = values["counts"]
        progress.skipped = list(values["skipped"])
        progress.resumed_from = list(values["resumed_from"])
        self.collate.micro = min(self.collate.micro, micro)
        for name, state in values["parts"].items():
            self.parts[name].load_state_dict(PartState(values=state, tensors=groups[f"part-{name}"]))
        self.run.step = found.step


class _Clock:
    """Adds the seconds of this attempt to those of earlier ones."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def stop(self) -> None:
        self._progress.wall_s += time.monotonic() - self._wall
        self._progress.cpu_s += time.process_time() - self._cpu
