"""The trained weights are the result."""

from __future__ import annotations

from strategies.training.seams import Part


class Keep(Part):
    """Changes nothing, after a step or at the end."""
