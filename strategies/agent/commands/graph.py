"""``rekindle mixing graph``: find which domain helps which."""

from __future__ import annotations

from strategies.agent.commands.proxies import Tell, environment_of
from strategies.agent.graph import skill_graph
from strategies.agent.requests import Graph, Report, estimate
from strategies.agent.texts import hashes
from strategies.libraries import library_versions
from strategies.settings import Json


def graph(request: Graph, tell: Tell) -> Json:
    """Skill-It's graph, as its settings take it."""
    environment = environment_of(request.domains, request.proxy, tell, name="graph")
    total = estimate(request).runs
    found = skill_graph(
        environment,
        seeds=request.seeds,
        weight=request.weight,
        done=lambda count: tell(Report(text="testing edges", step=count, steps=total)),
    )
    return {"graph": found, "facts": {"data": hashes(request.domains), "versions": library_versions()}}
