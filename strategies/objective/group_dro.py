"""DoReMi's proxy: group-robust next token against a frozen reference (Xie et al. 2023, METHODS 4.4)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from strategies.errors import BadPlan, Refused
from strategies.inference.encoding import IGNORED
from strategies.mixing.doremi import DoReMi
from strategies.mixing.trajectory import MixturePoint, points
from strategies.parts import GroupDroObjective, WeightedMixing
from strategies.training import randomness
from strategies.training.batches import Batch
from strategies.training.ledger import MAX_POINTS
from strategies.training.materials import Materials
from strategies.training.objective import Objective
from strategies.training.seams import PartState, Run

REFERENCE = "reference"


class GroupDro(Objective):
    """Each domain's tokens count by ``alpha / prior``; alpha follows how far the domain is behind the reference.

    Rows are drawn by the fixed prior, and it is the loss that is re-weighted. A step's excess is gathered over all its
    micro-batches before alpha moves, so that how many rows go through at once does not matter; more than one are passed
    through twice, with the same dropout. ``domains`` says which domain each source belongs to.
    """

    tasks = ("causal-lm", "sft")

    def __init__(self, settings: GroupDroObjective, domains: Mapping[str, str], *, steps: int) -> None:
        unknown = sorted(set(domains.values()) - set(settings.prior))
        if unknown:
            raise BadPlan(f"domain {unknown[0]} has no prior weight in the objective; give it one")
        self._adversary = DoReMi(settings.prior, eta=settings.eta, smoothing=settings.smoothing)
        self._prior = dict(self._adversary.alpha)
        self._names = list(self._prior)
        self._place = {source: self._names.index(domain) for source, domain in domains.items()}
        self._steps = steps
        self._stride = math.ceil(steps / MAX_POINTS)
        self._course: list[list[float]] = []

    @classmethod
    def of(cls, settings: GroupDroObjective, materials: Materials) -> GroupDro:
        """Over the domains of the job's mixing, which has to be weighted."""
        template = materials.template
        if not isinstance(template.mixing, WeightedMixing):
            raise Refused("the group-dro objective needs domains; give the job a weighted mixing")
        owners = {source: name for name, sources in template.mixing.domains.items() for source in sources}
        return cls(settings, owners, steps=template.steps)

    def begin(self, run: Run) -> None:
        """The reference answers without dropout and never moves."""
        if REFERENCE not in run.frozen_models:
            raise Refused("the group-dro objective needs a frozen reference model; name the reference job's answer")
        run.frozen_models[REFERENCE].eval().requires_grad_(False)

    def mixture(self) -> dict[str, float]:
        """The result: alpha averaged over all steps."""
        return self._adversary.average()

    def trajectory(self) -> list[MixturePoint]:
        """Alpha after steps equally far apart, and after the last."""
        steps = [min(self._stride * at, self._steps) for at in range(1, len(self._course) + 1)]
        return points(steps, [dict(zip(self._names, alpha, strict=True)) for alpha in self._course])

    def gradients(self, run: Run, micro: Sequence[Batch]) -> Tensor:
        """One step of alpha, then the gradient of the re-weighted loss; returns that loss, detached."""
        before = self._adversary.state_dict()
        try:
            return self._gradients(run, [batch.to(run.precision.device) for batch in micro])
        except torch.OutOfMemoryError:
            # The loop tries the same step again with fewer rows at a time: alpha must not have moved.
            self._adversary.load_state_dict(before)
            raise

    def _gradients(self, run: Run, micro: Sequence[Batch]) -> Tensor:
        streams = randomness.capture()
        with torch.set_grad_enabled(len(micro) == 1):
            losses = [self._losses(run, run.model, batch) for batch in micro]
        alpha = self._adversary.update(self._excess(run, micro, losses))
        weights = [self._weights(batch, alpha) for batch in micro]
        scale = sum((weight.sum() for weight in weights), torch.zeros((), device=run.precision.device)).clamp(min=1e-30)
        if len(micro) > 1:
            randomness.restore(*streams)
        total = torch.zeros((), device=run.precision.device)
        for batch, weight, found in zip(micro, weights, losses, strict=True):
            kept = found if len(micro) == 1 else self._losses(run, run.model, batch)
            loss = (kept * weight).sum() / scale
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        step = run.step + 1
        if step % self._stride == 0 or step == self._steps:
            self._course.append(list(alpha.values()))
        return total

    def _losses(self, run: Run, model: torch.nn.Module, batch: Batch) -> Tensor:
        """Loss of every token in nats, (rows, length); 0 where the target does not count."""
        with run.precision.autocast():
            logits = model(**batch.inputs, use_cache=False).logits
        flat = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), batch.targets.flatten(), reduction="none", ignore_index=IGNORED
        )
        return flat.view_as(batch.targets)

    def _excess(self, run: Run, micro: Sequence[Batch], losses: Sequence[Tensor]) -> dict[str, float]:
        """Mean over each domain's tokens of what the proxy is behind the reference, clipped at 0 token by token."""
        sums = torch.zeros(2, len(self._names), dtype=torch.float64, device=run.precision.device)
        for batch, found in zip(micro, losses, strict=True):
            with torch.no_grad():
                reference = self._losses(run, run.frozen_models[REFERENCE], batch)
            counted = batch.targets != IGNORED
            behind = (found.detach() - reference).clamp(min=0) * counted
            rows = torch.stack([behind.double().sum(1), counted.double().sum(1)])
            sums.index_add_(1, self._places(batch), rows)
        totals, counts = sums.tolist()
        return {name: totals[at] / counts[at] for at, name in enumerate(self._names) if counts[at]}

    def _weights(self, batch: Batch, alpha: Mapping[str, float]) -> Tensor:
        """Weight of every token, (rows, length)."""
        each = torch.tensor([alpha[name] / self._prior[name] for name in self._names], device=batch.targets.device)
        return each[self._places(batch)][:, None] * (batch.targets != IGNORED)

    def _places(self, batch: Batch) -> Tensor:
        try:
            places = [self._place[source] for source in batch.sources]
        except KeyError as error:
            raise Refused(f"source {error.args[0]} belongs to no domain of the objective; give it one") from error
        return torch.tensor(places, device=batch.targets.device)

    def state_dict(self) -> PartState:
        course = torch.tensor(self._course, dtype=torch.float64).reshape(len(self._course), len(self._names))
        return PartState(values=self._adversary.state_dict(), tensors={"course": course})

    def load_state_dict(self, state: PartState) -> None:
        self._adversary.load_state_dict(state.values)
        self._course = state.tensors["course"].tolist()
