"""Model surgery (Sun et al. 2025): an adapter a stage on a frozen base, and a router among them."""

from __future__ import annotations

from strategies.settings.composition import Composition, Named
from strategies.settings.consolidation import TaskMeanConsolidation
from strategies.settings.objective import LocalObjective
from strategies.settings.selection import AdapterSettings

MOS = Named(
    name="mos",
    summary="teach each stage to an adapter of its own on a frozen base; a router finds the adapter that answers",
    sources=("arXiv 2412.09441",),
    composition=Composition(
        selection=AdapterSettings(), objective=LocalObjective(), consolidation=TaskMeanConsolidation()
    ),
)
