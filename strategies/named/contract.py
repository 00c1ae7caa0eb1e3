"""What a named strategy is: a pure function from signals and settings to a plan.

Rules that all strategies share: every resolved value stands in ``Plan.values`` with its origin; the number of steps
depends on the new rows and the batch, never on the share of replay; a plan differs from every refused one; nothing is
drawn at random. A strategy that cannot plan raises BadPlan with the reason.
"""

from __future__ import annotations

from typing import Protocol

from strategies.contract import Plan, Signals
from strategies.settings import StrategySettings


class Strategy(Protocol):
    """A named strategy: its name, one sentence for the user, and where it comes from."""

    name: str
    summary: str
    sources: tuple[str, ...]

    def plan(self, signals: Signals, settings: StrategySettings) -> Plan:
        """Turn what was measured into jobs; raises BadPlan where nothing can be trained."""
        ...
