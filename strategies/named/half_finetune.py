"""Half fine-tuning (Hui et al. 2024): each stage keeps a fresh half of the matrices exactly as they were."""

from __future__ import annotations

from strategies.settings.composition import Composition, Named
from strategies.settings.selection import HalfSettings

HALF_FINETUNE = Named(
    name="half-finetune",
    summary="fine-tune the live model on the new data with half of its matrices frozen, another half each time",
    sources=("arXiv 2404.18466",),
    composition=Composition(selection=HalfSettings()),
)
