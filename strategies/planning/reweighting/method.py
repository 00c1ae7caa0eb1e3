"""What a re-weighting of domains brings to a plan."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from strategies.contract import Explained, Template, TrainTemplate
from strategies.parts import Reweighting, WeightedMixing
from strategies.planning.domains import Domain
from strategies.planning.stage import Stage

MIXTURE = "state/mixture"
"""Weights that a job leaves for a later one."""
Settings = TypeVar("Settings")


@dataclass(frozen=True, kw_only=True)
class Search:
    """Jobs before the stage's own that find a mixture, and the reference to what they found."""

    jobs: dict[str, Template] = field(default_factory=dict)
    found: str


class Method(Generic[Settings]):
    """A re-weighting, as plans are made with it; a member overrides what it needs."""

    from_first = False
    """It goes on from the first weights, so that a domain without any would never get some."""
    before = False
    """Jobs before the stage's own find its weights, whether or not anyone looks at losses in it."""
    needs_tokens: str | None = None
    """Why classification cannot have it; None: it can."""
    takes_models: str | None = None
    """Why a bank of adapters cannot have it; None: it can."""

    def record(self, settings: Settings, domains: tuple[Domain, ...]) -> Reweighting | None:
        """What changes the weights within the stage's job, by value; None: nothing does."""
        return None

    def search(self, settings: Settings, stage: Stage, main: TrainTemplate, mixing: WeightedMixing) -> Search | None:
        """The jobs before the stage's job ``main``, which draws by ``mixing``; None: there are none."""
        return None

    def idle(self, mixing: WeightedMixing) -> str | None:
        """Why the weights stay although losses are looked at; None: they move, or are found beforehand."""
        return None

    def explained(self, mixing: WeightedMixing) -> dict[str, Explained]:
        """Further values that are worth recording."""
        return {}
