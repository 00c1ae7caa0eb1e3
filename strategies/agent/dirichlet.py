"""Dirichlet draws and densities in logarithms, over mixtures padded to one number of domains."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from strategies.mixing.dirichlet import log_gammas

LEAST = 1e-3
"""Smallest parameter: below it draws are on a corner of the simplex as far as numbers can tell."""


def draw(parameters: Tensor, present: Tensor, rng: np.random.Generator) -> Tensor:
    """Logarithms of one draw for each row of ``parameters`` [..., K] (float64); -inf where not ``present``."""
    shapes = parameters.detach().double().clamp_min(LEAST).cpu().numpy()
    loose = torch.from_numpy(log_gammas(shapes, rng)).to(present.device).masked_fill(~present, -torch.inf)
    return torch.log_softmax(loose, -1)


def log_density(logs: Tensor, parameters: Tensor, present: Tensor) -> Tensor:
    """log p(u) [...] of draws given as logarithms [..., K]."""
    shapes = parameters.detach().double().clamp_min(LEAST)
    powers = ((shapes - 1) * logs.masked_fill(~present, 0)).masked_fill(~present, 0).sum(-1)
    normal = torch.lgamma(shapes).masked_fill(~present, 0).sum(-1)
    return torch.lgamma(shapes.masked_fill(~present, 0).sum(-1)) - normal + powers
