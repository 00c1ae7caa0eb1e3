"""Skill-It: online weights from a graph of what helps what (Chen et al. 2023, arXiv 2307.14430; METHODS 4.3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from strategies.errors import BadPlan
from strategies.mixing.simplex import Weights, normalised
from strategies.parts import SkillItReweighting
from strategies.settings import Json

Graph = Mapping[str, Mapping[str, float]]


def weights(initial: Weights, graph: Graph, losses: Sequence[Weights], eta: float) -> dict[str, float]:
    """``p(i)`` proportional to ``initial(i) * exp(eta * sum_j A_ij * sum of the losses of j over the window)``.

    ``losses`` are the evaluations of the window, oldest first. The initial weights are multiplied, not the last ones:
    the exponent sums the window already.
    """
    summed = {name: sum(found[name] for found in losses) for name in losses[-1]}
    scores = {name: eta * sum(graph.get(name, {}).get(key, 0.0) * summed[key] for key in summed) for name in initial}
    # Subtracting the greatest changes nothing once normalised and keeps exp within range.
    top = max(score for name, score in scores.items() if initial[name] > 0)
    return normalised({name: initial[name] * math.exp(min(0.0, scores[name] - top)) for name in initial})


def edges(
    alone: Weights, together: Mapping[str, Weights], *, weight: float | None = 0.5
) -> dict[str, dict[str, float]]:
    """The graph from the edge test: training on i and j for H steps beside training on j alone for H steps.

    ``alone[j]`` is the loss on j after training on j alone, ``together[i][j]`` that after training on {i, j}. Where the
    latter is lower there is an edge of ``weight``, or of the relative improvement if that is None. The diagonal is 1.
    """
    graph: dict[str, dict[str, float]] = {}
    for i in alone:
        gains = {j: 1 - together[i][j] / alone[j] for j in alone if j != i and j in together.get(i, {})}
        helped = {j: gain if weight is None else weight for j, gain in gains.items() if gain > 0}
        graph[i] = {j: 1.0 if j == i else helped[j] for j in alone if j == i or j in helped}
    return graph


def identity(domains: Sequence[str]) -> dict[str, dict[str, float]]:
    """The graph in which each domain helps itself alone: sampling follows each domain's own loss."""
    return {name: {name: 1.0} for name in domains}


class SkillIt:
    """Re-weights by :func:`weights` over the last evaluations, in the terms of :class:`SkillItReweighting`.

    Before anything was trained the losses count as 1. Eval sets without an edge have no part.
    """

    def __init__(self, settings: SkillItReweighting, initial: Weights) -> None:
        unknown = sorted(set(settings.graph) - set(initial))
        if unknown:
            raise BadPlan(f"the skill graph has {unknown[0]}, which is no domain of the mixing; remove it")
        self._settings = settings
        self._initial = dict(initial)
        self._sets = sorted({key for row in settings.graph.values() for key in row})
        if not self._sets:
            raise BadPlan("the skill graph has no edge; give each domain at least itself")
        self._window: list[dict[str, float]] = []

    def update(self, step: int, before: Weights, losses: Weights) -> dict[str, float]:
        """Weights for the steps after ``step``, at which the model had ``losses``."""
        missing = sorted(set(self._sets) - set(losses))
        if missing:
            raise BadPlan(f"the skill graph has eval set {missing[0]}, which has no loss; measure it or remove it")
        if step == 0:
            return self._weights([dict.fromkeys(self._sets, 1.0)])
        kept = {key: losses[key] for key in self._sets}
        if self._settings.mean_loss:
            kept = dict.fromkeys(kept, sum(kept.values()) / len(kept))
        self._window = [*self._window, kept][-self._settings.window :]
        return self._weights(self._window)

    def _weights(self, window: Sequence[Weights]) -> dict[str, float]:
        return weights(self._initial, self._settings.graph, window, self._settings.eta)

    def state_dict(self) -> Json:
        return {"window": [dict(losses) for losses in self._window]}

    def load_state_dict(self, state: Json) -> None:
        """Go on from :meth:`state_dict`."""
        self._window = [{key: float(loss) for key, loss in losses.items()} for losses in state["window"]]
