"""The trained weights are the result."""

from __future__ import annotations

from strategies.settings.consolidation import KeepConsolidation
from strategies.training.materials import Materials
from strategies.training.seams import Part


class Keep(Part):
    """Changes nothing, after a step or at the end."""

    @classmethod
    def of(cls, settings: KeepConsolidation, materials: Materials) -> Keep:
        """There is nothing to set."""
        return cls()
