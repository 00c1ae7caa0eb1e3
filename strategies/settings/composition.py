"""A composition: one choice on every screw, and what a composition with a name is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from strategies.settings.consolidation import ConsolidationSettings, KeepConsolidation
from strategies.settings.mixing import MixingSettings, NewSettings
from strategies.settings.objective import ObjectiveSettings, TaskSettings
from strategies.settings.record import Closed
from strategies.settings.schedule import CosineSettings, ScheduleSettings
from strategies.settings.selection import AllSettings, SelectionSettings

SCREWS = ("mixing", "selection", "schedule", "objective", "consolidation")


class Composition(Closed):
    """One choice on every screw, and what training starts from."""

    start: Literal["live", "base"] = "live"
    mixing: MixingSettings = NewSettings()
    selection: SelectionSettings = AllSettings()
    schedule: ScheduleSettings = CosineSettings()
    objective: ObjectiveSettings = TaskSettings()
    consolidation: ConsolidationSettings = KeepConsolidation()
    keep_optimizer: bool = False


@dataclass(frozen=True, kw_only=True)
class Named:
    """A composition under a name, one sentence for the user, and where it comes from."""

    name: str
    summary: str
    sources: tuple[str, ...]
    composition: Composition
    note: str = ""
    """What was measured of its choices, where that is why they are as they are."""
