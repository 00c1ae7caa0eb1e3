"""What a user may set: how a model is trained, and one module a screw. Records only: no torch, nothing of a job."""

from strategies.settings.record import Closed, Json
from strategies.settings.training import MOST_ROWS, MOST_STEPS, MOST_TOKENS, LoraSettings, Task, TrainingSettings

__all__ = ["MOST_ROWS", "MOST_STEPS", "MOST_TOKENS", "Closed", "Json", "LoraSettings", "Task", "TrainingSettings"]
