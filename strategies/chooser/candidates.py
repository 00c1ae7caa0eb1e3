"""What auto chooses among: compositions by label, and what the user's screws make of each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from strategies import planning
from strategies.contract import Plan, Signals
from strategies.named.data_mixing import DATA_MIXING
from strategies.named.half_finetune import HALF_FINETUNE
from strategies.named.mos import MOS
from strategies.named.naive import NAIVE
from strategies.named.retrain import RETRAIN
from strategies.named.rewarm_replay import REWARM_REPLAY
from strategies.settings import Json
from strategies.settings.composition import SCREWS, Composition, Named
from strategies.settings.mixing import EverythingSettings, ReplaySettings
from strategies.settings.schedule import InfiniteSettings

INFINITE = "rewarm-replay/infinite"
HALF_REPLAY = "half-finetune/replay"
NEW_BANK = "mos/base"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A composition that auto may choose."""

    label: str
    named: Named
    essence: tuple[str, ...]
    """Settings with others of which it is not what its label says."""
    screws: Json = field(default_factory=dict)

    def composition(self, turned: Json) -> Composition:
        """With the screws that the user turned, which hold whatever is chosen."""
        return self.named.composition.model_copy(update={**self.screws, **turned})

    def plan(self, signals: Signals, turned: Json) -> Plan:
        """Its plan; raises BadPlan where there is none."""
        return planning.plan(signals, self.composition(turned), strategy=self.named.name)

    def otherwise(self, turned: Json) -> dict[str, str]:
        """Setting -> value, of the screws that the user turned to another kind or share than the candidate's own."""
        own = self.composition({})
        asked = {screw: _kind(turned[screw]) for screw in ("start", *SCREWS) if screw in turned}
        found = {screw: kind for screw, kind in asked.items() if kind != _kind(getattr(own, screw))}
        mixing, usual = turned.get("mixing"), own.mixing
        if isinstance(mixing, ReplaySettings) and isinstance(usual, ReplaySettings) and mixing.share != usual.share:
            found["mixing.share"] = "what the shift asks for" if mixing.share is None else f"{mixing.share:g}"
        return found

    def overruled(self, turned: Json) -> dict[str, str]:
        """Those of its essence: with them it is another candidate, or none."""
        return {screw: kind for screw, kind in self.otherwise(turned).items() if screw in self.essence}

    def called(self, turned: Json) -> Candidate:
        """The candidate whose label says what the turned screws make of this one."""
        asked = self.composition(turned)
        alike = [one for one in (self, *candidates().values()) if one.composition(turned) == asked]
        return min(alike, key=lambda one: (bool(one.overruled(turned)), len(one.otherwise(turned))))


def _kind(screw: Any) -> str:
    return screw if isinstance(screw, str) else str(screw.kind)


def are_set(screws: dict[str, str]) -> str:
    """That the user set these screws, in words."""
    return ", ".join(f"strategy.{screw} is set to {kind}" for screw, kind in screws.items())


def candidates() -> dict[str, Candidate]:
    """All of them, by label."""
    made = (
        Candidate(label="naive", named=NAIVE, essence=("mixing",)),
        Candidate(label="rewarm-replay", named=REWARM_REPLAY, essence=("mixing", "selection", "schedule")),
        Candidate(label="half-finetune", named=HALF_FINETUNE, essence=("mixing", "selection")),
        Candidate(label=HALF_REPLAY, named=HALF_FINETUNE, essence=("selection",), screws={"mixing": ReplaySettings()}),
        Candidate(
            label="rewarm-replay/half",
            named=REWARM_REPLAY,
            essence=("mixing", "mixing.share"),
            screws={"mixing": ReplaySettings(share=0.5)},
        ),
        Candidate(label=INFINITE, named=REWARM_REPLAY, essence=("schedule",), screws={"schedule": InfiniteSettings()}),
        Candidate(label="data-mixing", named=DATA_MIXING, essence=("mixing",)),
        Candidate(label="mos", named=MOS, essence=("mixing", "selection")),
        Candidate(
            label=NEW_BANK,
            named=MOS,
            essence=("start", "mixing", "selection"),
            screws={"start": "base", "mixing": EverythingSettings()},
        ),
        Candidate(label="retrain", named=RETRAIN, essence=("start", "mixing")),
    )
    return {one.label: one for one in made}
