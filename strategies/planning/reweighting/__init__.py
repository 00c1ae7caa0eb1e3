"""How a plan re-weights domains (METHODS 4): one file a method, listed here."""

from __future__ import annotations

from typing import Any

from strategies.planning.reweighting.agent import Agent
from strategies.planning.reweighting.doremi import DoReMi
from strategies.planning.reweighting.method import MIXTURE, Method, Search
from strategies.planning.reweighting.regmix import RegMix
from strategies.planning.reweighting.skill_it import SkillIt
from strategies.settings.mixing import (
    AgentMixSettings,
    DoReMiSettings,
    NoReweighting,
    RegMixSettings,
    ReweightSettings,
    SkillItSettings,
)

METHODS: dict[type, Method[Any]] = {
    NoReweighting: Method(),
    SkillItSettings: SkillIt(),
    DoReMiSettings: DoReMi(),
    RegMixSettings: RegMix(),
    AgentMixSettings: Agent(),
}


def method_of(settings: ReweightSettings) -> Method[Any]:
    """The method whose settings these are."""
    return METHODS[type(settings)]


__all__ = ["METHODS", "MIXTURE", "Method", "Search", "method_of"]
