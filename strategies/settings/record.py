"""What every record and every setting is."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

Json = dict[str, Any]


class Closed(BaseModel):
    """Base of every record and setting: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
