"""Numbers with their nouns, as a sentence has them."""

from __future__ import annotations


def counted(count: float, noun: str, *, many: str | None = None) -> str:
    """``1 step``, ``2 steps``; ``many`` where the plural is not the noun with an s."""
    shown = f"{count:g}" if isinstance(count, float) else f"{count}"
    return f"{shown} {noun if count == 1 else many or f'{noun}s'}"
