"""Dirichlet draws in logarithms: a gamma variate of a small shape underflows where it is drawn plainly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def log_gammas(shapes: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """log G(a) = log G(a + 1) + log(U) / a for every shape a; their softmax is a draw of Dirichlet(shapes)."""
    variates = random.standard_gamma(shapes + 1)
    return np.asarray(np.log(variates) + np.log1p(-random.random(shapes.shape)) / shapes, dtype=np.float64)
