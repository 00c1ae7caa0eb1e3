"""A model that chooses mixtures: learns from logged trajectories how weights of domains move their losses.

``requests``, ``trajectories``, ``proposals`` and ``folder`` bring no torch.
"""

TRIED = (
    "an agent taught from 128 trajectories was behind the best constant mixture by 1.56 on four-to-german-code and 1.68"
    " on german-to-code (standard deviations of loss), ahead in 0 of 6 runs"
)
"""Why none ships: the largest result of `tests/benchmarks/mixing_agent.py` in words."""

UNTAUGHT = (
    "skill-it, the default, needs no tiny runs, but over 3 runs was behind the best constant mixture by 0.08 on"
    " four-to-german-code and 0.11 on german-to-code (standard deviations of loss)"
)
"""Why Skill-It is what re-weights unless told otherwise, from the same result."""
