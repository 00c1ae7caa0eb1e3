"""DoReMi's weights: a step of the adversary, and their average (Xie et al. 2023, arXiv 2305.10429; METHODS 4.4).

The losses that feed it come from :mod:`strategies.objective.group_dro`. Excess is clipped at 0 for each token before
its mean is taken; nothing is clipped here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from strategies.errors import BadPlan, BadState
from strategies.mixing.simplex import Weights, normalised
from strategies.settings import Json


def step(alpha: Weights, excess: Weights, *, eta: float, smoothing: float) -> dict[str, float]:
    """``softmax(log alpha + eta * excess)``, of which ``smoothing`` is dealt out equally."""
    top = max(eta * excess[name] for name in alpha)
    moved = normalised({name: weight * math.exp(eta * excess[name] - top) for name, weight in alpha.items()})
    return {name: (1 - smoothing) * weight + smoothing / len(alpha) for name, weight in moved.items()}


class DoReMi:
    """The adversary over a whole run: weights now, and :meth:`average`, which is the result.

    A domain absent from a step keeps the excess it last had; one never seen has none.
    """

    def __init__(self, prior: Weights, *, eta: float, smoothing: float) -> None:
        self._eta, self._smoothing = eta, smoothing
        self.alpha = normalised(prior)
        if min(self.alpha.values()) == 0:
            raise BadPlan("a domain with weight 0 cannot be weighted; leave it out")
        self._excess = dict.fromkeys(prior, 0.0)
        self._sum = dict.fromkeys(prior, 0.0)
        self._steps = 0

    def update(self, excess: Mapping[str, float]) -> dict[str, float]:
        """One step with the excess of the domains that were present; one that is not finite counts as absent."""
        self._excess |= {name: value for name, value in excess.items() if math.isfinite(value)}
        self.alpha = step(self.alpha, self._excess, eta=self._eta, smoothing=self._smoothing)
        self._sum = {name: self._sum[name] + weight for name, weight in self.alpha.items()}
        self._steps += 1
        return self.alpha

    def average(self) -> dict[str, float]:
        """The mean of the weights over all steps; the prior before the first."""
        return normalised(self._sum) if self._steps else dict(self.alpha)

    def state_dict(self) -> Json:
        return {"alpha": self.alpha, "excess": dict(self._excess), "sum": self._sum, "steps": self._steps}

    def load_state_dict(self, state: Json) -> None:
        """Go on from :meth:`state_dict`."""
        if set(state["alpha"]) != set(self.alpha):
            raise BadState("the weights of the checkpoint are of other domains; start the job anew")
        order = list(self.alpha)
        self.alpha, self._excess, self._sum = (
            {name: float(state[key][name]) for name in order} for key in ("alpha", "excess", "sum")
        )
        self._steps = int(state["steps"])
