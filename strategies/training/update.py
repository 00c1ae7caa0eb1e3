"""One guarded optimizer step: applied only if loss and gradient are finite, without waiting for a GPU to say so."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from strategies.training.seams import Run


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Loss and gradient norm of a step, on their way from the device."""

    values: Tensor
    arrived: Any

    def loss(self) -> float | None:
        """The step's mean loss; None if the step was not applied because loss or gradient is not finite."""
        if self.arrived is not None:
            self.arrived.synchronize()
        loss, norm = self.values.tolist()
        return loss if math.isfinite(loss) and math.isfinite(norm) else None


def apply(run: Run, loss: Tensor, *, max_grad_norm: float) -> Reading | float | None:
    """Clip, step and clear the gradients.

    On a CPU the answer is there at once: the loss, or None if the step was not applied. On a GPU the fused optimizer
    itself leaves the weights alone when told so by a tensor, and the answer is read a step later.
    """
    gradients = [parameter.grad for parameter in run.parameters.values() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if max_grad_norm > 0:
        torch.nn.utils.clip_grads_with_norm_(run.parameters.values(), max_grad_norm, norm)
    answer = _at_once(run, loss, norm) if norm.device.type == "cpu" else _later(run, loss, norm)
    run.optimizer.zero_grad(set_to_none=True)
    return answer


def _at_once(run: Run, loss: Tensor, norm: Tensor) -> Reading | float | None:
    value = loss.item()
    if not (math.isfinite(value) and math.isfinite(norm.item())):
        return None
    run.optimizer.step()
    return value


def _later(run: Run, loss: Tensor, norm: Tensor) -> Reading:
    both = torch.stack([loss.float(), norm.float()])
    # What torch's own gradient scaler uses: the fused kernel reads the flag on the device.
    run.optimizer.grad_scale = None  # type: ignore[attr-defined]
    run.optimizer.found_inf = (~torch.isfinite(both).all()).float()  # type: ignore[attr-defined]
    run.optimizer.step()
    if not both.is_cuda:
        return Reading(values=both, arrived=None)
    values = torch.empty(2, pin_memory=True)
    values.copy_(both, non_blocking=True)
    arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
    arrived.record()
    return Reading(values=values, arrived=arrived)


def finite(tensors: Any) -> bool:
    """Whether every number in ``tensors`` is finite; waits for the device."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())
