"""Skill-It (METHODS 4.3): the graph between the domains of a stage."""

from __future__ import annotations

from strategies.mixing.skill_it import identity
from strategies.parts import SkillItReweighting, WeightedMixing
from strategies.planning.domains import Domain, called
from strategies.planning.reweighting.method import Method
from strategies.settings.mixing import SkillItSettings

Graph = dict[str, dict[str, float]]


class SkillIt(Method[SkillItSettings]):
    """Weights follow what is still hard."""

    from_first = True

    def record(self, settings: SkillItSettings, domains: tuple[Domain, ...]) -> SkillItReweighting | None:
        graph = identity([one.name for one in domains]) if settings.graph is None else _present(settings.graph, domains)
        if settings.targets:
            graph = _towards(graph, _measured_targets(settings.targets, domains))
        if not any(graph.values()):
            return None
        return SkillItReweighting(
            eta=settings.eta, window=settings.window, graph=graph, mean_loss=bool(settings.targets)
        )

    def idle(self, mixing: WeightedMixing) -> str | None:
        return (
            "none of its targets is there now with an eval set: the weights stay" if mixing.reweight is None else None
        )


def _present(graph: Graph, domains: tuple[Domain, ...]) -> Graph:
    """The graph between the domains that are there now; each helps itself."""
    edges: Graph = {domain.name: {domain.name: 1.0} for domain in domains}
    for name, row in graph.items():
        helped = {one: edge for to, edge in row.items() for one in called(domains, to)}
        for one in called(domains, name):
            edges[one] |= helped
    return edges


def _towards(graph: Graph, targets: frozenset[str]) -> Graph:
    """The edges that end at targets (METHODS 4.3: with target skills only)."""
    return {name: {to: edge for to, edge in row.items() if to in targets} for name, row in graph.items()}


def _measured_targets(targets: tuple[str, ...], domains: tuple[Domain, ...]) -> frozenset[str]:
    measured = {domain.name for domain in domains if domain.measured}
    return frozenset(one for name in targets for one in called(domains, name)) & measured
