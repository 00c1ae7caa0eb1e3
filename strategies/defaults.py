"""Defaults that settings, requests and the command line share. The command line starts with it: it imports nothing."""

STEPS = 40
STEP_TOKENS = 4096
EVAL_TOKENS = 1024
HIDDEN = 64
LAYERS = 2
HEADS = 4
MAX_PARAMETERS = 300_000
SEED = 1234
REGMIX_RUNS = 64
REGMIX_TOKENS = 50_000
WARM_UPDATES = 500
UPDATES = 1500
CONSERVATIVE = 1.0
SEEDS = 3
"""Runs of every policy, pair or domain, under the seeds 1, 2, 3."""
ETA = 0.2
GRAPH_STEPS = 10
EDGE = 0.5
"""Of Skill-It's graph, between two domains one of which helps the other."""
ENOUGH = 128
"""Trajectories that an agent should be taught from at least (METHODS 4.1)."""
