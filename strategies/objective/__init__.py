"""What is minimised: one file an objective, listed here."""

from __future__ import annotations

from strategies.objective.causal_lm import CausalLm
from strategies.objective.classification import Classification
from strategies.objective.sft import Sft
from strategies.settings import Task
from strategies.training.objective import Objective

OBJECTIVES: dict[Task, type[Objective]] = {"causal-lm": CausalLm, "sft": Sft, "classification": Classification}

__all__ = ["OBJECTIVES", "Objective"]
