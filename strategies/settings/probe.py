"""What a user sets about the probe of auto."""

from __future__ import annotations

from pydantic import Field

from strategies.settings.record import Closed


class ProbeSettings(Closed):
    """Whether auto tries the best few compositions before it chooses, and what that may cost."""

    budget: float = Field(
        0.25,
        gt=0,
        le=1e15,
        description="steps of all short runs together, as a share of the retrain's steps; above 1: tokens",
    )
    candidates: int = Field(4, ge=2, le=8, description="compositions that are tried, the rules' own choice among them")
    keep: float = Field(0.5, gt=0, lt=1, description="share of the compositions that each round keeps")
    documents: int = Field(64, ge=2, description="at most this many select documents of an eval set are scored")
