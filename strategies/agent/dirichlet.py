"""Dirichlet draws and densities in logarithms, over mixtures padded to one number of domains.

Shapes of a small parameter underflow where they are drawn plainly: log G(a) = log G(a + 1) + log(U) / a.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

LEAST = 1e-3
"""Smallest parameter: below it draws are on a corner of the simplex as far as numbers can tell."""


def draw(parameters: Tensor, present: Tensor, rng: np.random.Generator) -> Tensor:
    """Logarithms of one draw for each row of ``parameters`` [..., K] (float64); -inf where not ``present``."""
    shapes = parameters.detach().double().clamp_min(LEAST).cpu().numpy()
    logs = np.log(rng.standard_gamma(shapes + 1)) + np.log1p(-rng.random(shapes.shape)) / shapes
    loose = torch.from_numpy(logs).to(present.device).masked_fill(~present, -torch.inf)
    return torch.log_softmax(loose, -1)


def log_density(logs: Tensor, parameters: Tensor, present: Tensor) -> Tensor:
    """log p(u) [...] of draws given as logarithms [..., K]."""
    shapes = parameters.detach().double().clamp_min(LEAST)
    powers = ((shapes - 1) * logs.masked_fill(~present, 0)).masked_fill(~present, 0).sum(-1)
    normal = torch.lgamma(shapes).masked_fill(~present, 0).sum(-1)
    return torch.lgamma(shapes.masked_fill(~present, 0).sum(-1)) - normal + powers
