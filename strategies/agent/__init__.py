"""A model that chooses mixtures: learns from logged trajectories how weights of domains move their losses.

``defaults``, ``settings``, ``requests``, ``trajectories``, ``proposals`` and ``recorded`` bring no torch.
"""

TRIED = (
    "the agent that was tried was taught from 128 trajectories with 500 + 1500 updates and compared on 2 sets of"
    " domains that it had not seen: on four-to-german-code losses fell by 3.167 deviations under it, by 4.728 under"
    " the best constant mixture (uniform), and it was ahead in 0 of 3 runs; on german-to-code losses fell by 4.195"
    " deviations under it, by 5.878 under the best constant mixture (regmix), and it was ahead in 0 of 3 runs"
)
"""Why none ships: the largest result of `tests/benchmarks/mixing_agent.py` in words."""

UNTAUGHT = (
    "skill-it is the default for what it does without, tiny runs and a mixture chosen beforehand, not for being"
    " ahead: on four-to-german-code losses fell by 4.645 ± 0.065 deviations under it, by 4.728 ± 0.156 under the"
    " best constant mixture and by 4.172 ± 0.063 under constant replay of 25 %; on german-to-code losses fell by"
    " 5.770 ± 0.184 deviations under it, by 5.878 ± 0.132 under the best constant mixture and by 5.482 ± 0.031"
    " under constant replay of 25 %"
)
"""Why Skill-It is what re-weights unless told otherwise, from the same result."""
