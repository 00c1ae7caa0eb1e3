"""Dirichlet draws in logarithms: gamma variates of a small shape underflow where they are drawn plainly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def log_gammas(shapes: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Logarithms of gamma variates, whose softmax is a draw of Dirichlet(shapes): log G(a) = log G(a + 1) + log(U) / a."""
    variates = random.standard_gamma(shapes + 1)
    return np.asarray(np.log(variates) + np.log1p(-random.random(shapes.shape)) / shapes, dtype=np.float64)
