"""Plain continued fine-tuning on the new data alone: the baseline that forgets."""

from __future__ import annotations

from strategies.settings.composition import Composition, Named

NAIVE = Named(
    name="naive",
    summary="fine-tune the live model on the new data alone; nothing guards what it knew",
    sources=(),
    composition=Composition(),
)
