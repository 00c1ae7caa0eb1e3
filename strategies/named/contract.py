"""What a named strategy is."""

from __future__ import annotations

from dataclasses import dataclass

from strategies.composition import Composition


@dataclass(frozen=True, kw_only=True)
class Named:
    """A composition under a name, one sentence for the user, and where it comes from."""

    name: str
    summary: str
    sources: tuple[str, ...]
    composition: Composition
    note: str = ""
    """What was measured of its choices, where that is why they are as they are."""
