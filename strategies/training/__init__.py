"""The training loop with its named seams, and what it stands on: data, parameters, checkpoints, precision."""
