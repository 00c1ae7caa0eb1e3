"""What is minimised: one file an objective, listed here."""

from __future__ import annotations

from strategies.errors import Refused
from strategies.objective.causal_lm import CausalLm
from strategies.objective.classification import Classification
from strategies.objective.group_dro import GroupDro
from strategies.objective.local import Local
from strategies.objective.sft import Sft
from strategies.settings import Task
from strategies.training.materials import Materials
from strategies.training.objective import Objective

OBJECTIVES: dict[str, type[Objective]] = {
    "causal-lm": CausalLm,
    "sft": Sft,
    "classification": Classification,
    "local": Local,
    "group-dro": GroupDro,
}


def check(kind: str, task: Task) -> None:
    """Raises Refused where an objective is not for the task."""
    if task not in OBJECTIVES[kind].tasks:
        raise Refused(f"objective {kind} does not fit task {task}")


def objective_of(materials: Materials) -> Objective:
    """The objective that a job's template names."""
    settings = materials.template.objective
    return OBJECTIVES[settings.kind].of(settings, materials)


__all__ = ["OBJECTIVES", "Objective", "check", "objective_of"]
