"""Retraining from the base on everything: the upper bound, and the most expensive."""

from __future__ import annotations

from strategies.composition import Composition, EverythingSettings
from strategies.named.contract import Named

RETRAIN = Named(
    name="retrain",
    summary="start again from the base model on everything that ever came, and the anchor",
    sources=("arXiv 2403.08763: the union baseline",),
    composition=Composition(start="base", mixing=EverythingSettings()),
)
