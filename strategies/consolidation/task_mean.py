"""Pull a task's adapter towards the mean of its predecessors while it trains (METHODS 3.2, 3.4, 3.6)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from strategies.errors import BadPlan, Refused
from strategies.inference.names import PEFT_PREFIX
from strategies.merging.low_rank import LowRank, factor_gap, relative_norm, stacked, truncated
from strategies.settings import Json
from strategies.settings.consolidation import TaskMeanConsolidation
from strategies.training.lora import Predecessor
from strategies.training.materials import Materials
from strategies.training.seams import Part, PartState, Run

Factors = tuple[Tensor, Tensor]
"""A (r, in) and B (out, r) of one module's adapter; its update is scale * B @ A."""
MAX_MERGES = 200
"""The last merges that are remembered, however many epochs there are."""


class TaskMean(Part):
    """The exponential pull of :class:`~strategies.parts.TaskMeanConsolidation`, after steps only.

    Live parameters are written under no_grad; predecessors are clones and never change. The first task has no
    predecessor, and nothing is done. An epoch that the end cuts short counts as one.
    """

    def __init__(
        self,
        settings: TaskMeanConsolidation,
        predecessors: Sequence[Predecessor] = (),
        *,
        adapter: str = "t1",
        scale: float = 2.0,
        epoch_steps: int = 1,
    ) -> None:
        if settings.space == "delta" and settings.merge_every == "step":
            raise BadPlan("merging products anew after every step would reset the optimizer; merge every epoch or task")
        self.settings = settings
        self.adapter = adapter
        self.scale = scale
        self.epoch_steps = max(1, epoch_steps)
        self.predecessors = [
            Predecessor(
                tensors={name: tensor.detach().clone() for name, tensor in one.tensors.items()}, scale=one.scale
            )
            for one in predecessors
        ]
        self.delta = settings.space == "delta"
        self.merged_at = 0
        self.log: list[Json] = []

    @classmethod
    def of(cls, settings: TaskMeanConsolidation, materials: Materials) -> TaskMean:
        """Over the bank's adapters; an epoch is a pass over the new rows."""
        adaptation, mixing = materials.adaptation, materials.template.mixing
        if adaptation is None:
            raise Refused("task-mean joins adapters, but the job trains none; give it an adapter selection")
        rows = sum(len(materials.rows[name]) for name in mixing.new)
        return cls(
            settings,
            adaptation.predecessors,
            adapter=adaptation.selection.name,
            scale=adaptation.scale,
            epoch_steps=-(-rows // mixing.batch),
        )

    def begin(self, run: Run) -> None:
        device = run.precision.device
        self.predecessors = [
            Predecessor(tensors={name: tensor.to(device) for name, tensor in one.tensors.items()}, scale=one.scale)
            for one in self.predecessors
        ]

    def after_step(self, run: Run, step: int) -> None:
        if not self.predecessors or self.settings.merge_every == "task":
            return
        ends_epoch = step % self.epoch_steps == 0
        every_step = self.settings.merge_every == "step"
        # Before the first merge, too: how far adapters are apart says which space it may be in.
        if ends_epoch or (every_step and not self.log):
            self._measure(run, step)
        if ends_epoch or (every_step and not self.delta):
            self._merge(run, step)

    def end(self, run: Run) -> None:
        if not self.predecessors or self.merged_at == run.step:
            return
        self._measure(run, run.step)
        self._merge(run, run.step)

    def state_dict(self) -> PartState:
        return PartState(values={"delta": self.delta, "merged_at": self.merged_at, "log": list(self.log)})

    def load_state_dict(self, state: PartState) -> None:
        self.delta, self.merged_at = bool(state.values["delta"]), int(state.values["merged_at"])
        self.log = list(state.values["log"])

    @property
    def facts(self) -> Json:
        """What happened, for the facts of the job."""
        return {"merges": list(self.log), "space": "delta" if self.delta else "factor"}

    def _measure(self, run: Run, step: int) -> None:
        """Log how far the product of means is from the mean of products; too far: average products from now on.

        Once products are averaged, factors no longer share a basis and the gap says nothing.
        """
        if self.delta:
            return
        with torch.no_grad():
            gap = relative_gap([self._adapters(pair) for pair in self._pairs(run)], [self.scale, *self._scales()])
        self.delta = self.settings.space == "auto" and gap > self.settings.gap
        self.log.append({"step": step, "gap": gap, "space": "delta" if self.delta else "factor"})
        del self.log[:-MAX_MERGES]

    @torch.no_grad()
    def _merge(self, run: Run, step: int) -> None:
        self.merged_at = step
        alpha = self._alpha(run)
        if alpha == 0:
            return
        for module in self._pairs(run):
            live, *stored = self._adapters(module)
            if self.delta:
                self._write_delta(run, live, stored, alpha)
            else:
                for parameter, before in zip(live, zip(*stored, strict=True), strict=True):
                    pull(parameter, list(before), alpha)

    def _alpha(self, run: Run) -> float:
        settings = self.settings
        if not (settings.merge_every == "step" and settings.scale_alpha_by_lr) or self.delta:
            return settings.alpha
        group = run.optimizer.param_groups[0]
        return settings.alpha * float(group["lr"]) / float(group["base_lr"])

    def _write_delta(self, run: Run, live: Factors, stored: list[Factors], alpha: float) -> None:
        weights = [1 - alpha, *(alpha / len(stored) for _ in stored)]
        a, b = truncated_mean([live, *stored], [self.scale, *self._scales()], weights, scale=self.scale)
        live[0].copy_(a)
        live[1].copy_(b)
        for parameter in live:
            # Cleared in place: a checkpoint wants moments of every parameter.
            for value in run.optimizer.state.get(parameter, {}).values():
                value.zero_()

    def _scales(self) -> list[float]:
        return [one.scale for one in self.predecessors]

    def _pairs(self, run: Run) -> Iterator[tuple[str, Factors]]:
        """Every adapted module by PEFT's name, with its live factors."""
        for name, down in run.parameters.items():
            before, found, after = name.partition(f".lora_A.{self.adapter}.")
            if found:
                up: nn.Parameter = run.parameters[f"{before}.lora_B.{self.adapter}.{after}"]
                yield before[before.index(PEFT_PREFIX) :], (down, up)

    def _adapters(self, module: tuple[str, Factors]) -> list[Factors]:
        """Live factors of a module, then those of every predecessor."""
        name, live = module
        stored = [
            (one.tensors[f"{name}.lora_A.weight"], one.tensors[f"{name}.lora_B.weight"]) for one in self.predecessors
        ]
        return [live, *stored]


def pull(live: Tensor, stored: Sequence[Tensor], alpha: float) -> None:
    """``live <- (1 - alpha) live + alpha mean(stored)`` in place; alpha 1 gives the mean exactly, 0 changes nothing."""
    if alpha:
        live.mul_(1 - alpha).add_(torch.stack(list(stored)).mean(0), alpha=alpha)


def truncated_mean(
    adapters: Sequence[Factors], scales: Sequence[float], weights: Sequence[float], *, scale: float
) -> Factors:
    """Factors of the best approximation of ``sum w s B A`` by an update of the first adapter's rank and ``scale``.

    In float64, and best in the Frobenius norm (METHODS 3.6; Eckart and Young 1936).
    """
    terms = [(weight, _change(one, s)) for weight, s, one in zip(weights, scales, adapters, strict=True)]
    nearest, _ = truncated(stacked(terms), adapters[0][0].shape[0])
    root = math.sqrt(scale)
    return nearest.a / root, nearest.b / root


def relative_gap(modules: Iterable[Sequence[Factors]], scales: Sequence[float]) -> float:
    """``|| mean(s B) mean(A) - mean(s B A) || / || mean(s B A) ||`` over all modules together, in float64.

    0 for equal factors; near 1 for adapters that were started independently (METHODS 3.6).
    """
    changes = ([_change(one, s) for s, one in zip(scales, adapters, strict=True)] for adapters in modules)
    return relative_norm(map(factor_gap, changes))


def _change(adapter: Factors, scale: float) -> LowRank:
    a, b = adapter
    return LowRank(b=scale * b.double(), a=a.double())
