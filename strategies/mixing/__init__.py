"""Which rows every optimizer step takes: one file a mixing, listed in :mod:`strategies.mixing.samplers`.

Nothing is imported here: the contract needs what this package says of domains, and no numbers.
"""
