"""A model that chooses mixtures: learns from logged trajectories how weights of domains move their losses.

``defaults``, ``settings``, ``requests``, ``trajectories``, ``proposals`` and ``recorded`` bring no torch.
"""

ENOUGH = 128
"""Trajectories that an agent should be taught from at least (METHODS 4.1)."""

TRIED = (
    "the agent that was tried let losses on domains it had not seen fall by 4.259 deviations, the best constant mixture"
    " (regmix) by 5.870; it was ahead in 0 of 3 runs"
)
"""Why none ships: `tests/benchmarks/results/mixing_agent-short.json` in words."""
