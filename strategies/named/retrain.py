"""Retraining from the base on everything: the upper bound, and the most expensive."""

from __future__ import annotations

from strategies.settings.composition import Composition, Named
from strategies.settings.mixing import EverythingSettings

RETRAIN = Named(
    name="retrain",
    summary="start again from the base model on everything that ever came, and the anchor",
    sources=("arXiv 2403.08763: the union baseline",),
    composition=Composition(start="base", mixing=EverythingSettings()),
)
