"""Answer only."""

from __future__ import annotations

from strategies.objective.causal_lm import CausalLm


class Sft(CausalLm):
    """Cross-entropy of the answer's tokens and the token that closes it; the prompt's targets do not count."""

    tasks = ("sft",)
