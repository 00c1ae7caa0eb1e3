"""What a user sets about the probe of auto."""

from __future__ import annotations

from pydantic import Field

from strategies.settings.record import Closed


class ProbeSettings(Closed):
    """Short runs of the best few compositions before auto chooses, and what they may cost."""

    budget: float = Field(
        0.25,
        gt=0,
        le=1e15,
        description="what all short runs may take together: up to 1, a share of the retrain's steps; above 1, tokens",
    )
    candidates: int = Field(4, ge=2, le=8, description="compositions that are tried, the rules' own choice among them")
    keep: float = Field(0.5, gt=0, lt=1, description="share of the compositions that each round lets go on")
    documents: int = Field(64, ge=2, description="most documents of an eval set's select half that each is scored on")
