"""Re-warm, re-decay and replay (Ibrahim et al. 2024), with one cosine or the infinite schedule."""

from __future__ import annotations

from strategies.settings.composition import Composition, Named
from strategies.settings.mixing import ReplaySettings

REWARM_REPLAY = Named(
    name="rewarm-replay",
    summary="fine-tune the live model with a re-warmed learning rate and a share of old rows in every step",
    sources=("arXiv 2403.08763", "arXiv 2308.04014"),
    composition=Composition(mixing=ReplaySettings()),
)
