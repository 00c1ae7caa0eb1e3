"""The data mixing agent (METHODS 4.1): its folder by value, and a RegMix search for its guard."""

from __future__ import annotations

from pathlib import Path

from strategies.agent import TRIED
from strategies.agent.folder import fingerprint
from strategies.contract import Explained, TrainTemplate
from strategies.parts import AgentReweighting, WeightedMixing
from strategies.planning.domains import Domain
from strategies.planning.reweighting import regmix
from strategies.planning.reweighting.method import Method, Search
from strategies.planning.stage import Stage
from strategies.settings.mixing import WITHOUT, AgentMixSettings


class Agent(Method[AgentMixSettings]):
    """A taught agent chooses the weights; without one they stay."""

    from_first = True

    def record(self, settings: AgentMixSettings, domains: tuple[Domain, ...]) -> AgentReweighting | None:
        if settings.folder is None:
            return None
        return AgentReweighting(
            folder=settings.folder, sha256=fingerprint(Path(settings.folder)), patience=settings.patience
        )

    def search(
        self, settings: AgentMixSettings, stage: Stage, main: TrainTemplate, mixing: WeightedMixing
    ) -> Search | None:
        if settings.regmix is None or mixing.reweight is None:
            return None
        return regmix.search(settings.regmix, stage, main, mixing)

    def idle(self, mixing: WeightedMixing) -> str | None:
        return f"no agent is given and none ships: {TRIED}. {WITHOUT}" if mixing.reweight is None else None

    def explained(self, mixing: WeightedMixing) -> dict[str, Explained]:
        agent = mixing.reweight
        if not isinstance(agent, AgentReweighting):
            return {}
        return {"agent": Explained(value=agent.sha256, origin=agent.folder)}
