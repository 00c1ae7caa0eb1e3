"""What a model's files and tensors are called, as transformers and PEFT write them, and how an adapter is scaled."""

from __future__ import annotations

from strategies.inference.bank.files import ADAPTER_CONFIG, ADAPTER_WEIGHTS

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "LABELS_FILE",
    "PEFT_PREFIX",
    "WEIGHTS",
    "WEIGHTS_INDEX",
    "WEIGHT_FILES",
    "scale_of",
]

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
"""Which of several files holds which tensor."""
WEIGHT_FILES = "model*.safetensors"
"""A folder's weights, one file or several."""
LABELS_FILE = "labels.json"
"""Beside an adapter: the classes in the order of its head's rows."""
PEFT_PREFIX = "base_model.model."
"""What PEFT puts before the names of the model that it wraps."""


def scale_of(rank: int, alpha: float, *, rslora: bool) -> float:
    """What the product ``B @ A`` of an adapter's factors is multiplied by."""
    return alpha / (rank**0.5 if rslora else rank)
