"""A model that chooses mixtures: learns from logged trajectories how weights of domains move their losses.

``settings``, ``trajectories`` and ``proposals`` are light; all other modules bring torch.
"""

ENOUGH = 128
"""Trajectories that an agent should be taught from at least (METHODS 4.1)."""
