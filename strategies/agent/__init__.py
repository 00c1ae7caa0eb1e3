"""A model that chooses mixtures: learns from logged trajectories how weights of domains move their losses.

``defaults``, ``settings``, ``requests``, ``trajectories``, ``proposals`` and ``recorded`` bring no torch.
"""

ENOUGH = 128
"""Trajectories that an agent should be taught from at least (METHODS 4.1)."""

TRIED = (
    "the agent that was tried was taught from 96 trajectories with 300 + 300 updates and compared on 1 set of domains"
    " that it had not seen: on german-to-code losses fell by 4.259 deviations under it, by 5.870 under the best"
    " constant mixture (regmix), and it was ahead in 0 of 3 runs"
)
"""Why none ships: the largest result of `tests/benchmarks/mixing_agent.py` in words."""

UNTAUGHT = (
    "skill-it is the default for what it does without, tiny runs and a mixture chosen beforehand, not for being ahead:"
    " on german-to-code losses fell by 5.759 ± 0.186 deviations under it, by 5.870 ± 0.133 under the best constant"
    " mixture and by 5.461 ± 0.031 under constant replay of 25 %"
)
"""Why Skill-It is what re-weights unless told otherwise, from the same result."""
