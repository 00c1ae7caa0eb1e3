"""What a result says about how it came to be."""

from __future__ import annotations

import importlib.metadata
import platform

import torch

from strategies.contract import JobSpec
from strategies.inference.precision import Precision
from strategies.settings import Json

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy", "pyarrow")


def common(spec: JobSpec, precision: Precision) -> Json:
    """Versions, threads, precision and seed: the things that change bytes."""
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}},
        "threads": torch.get_num_threads(),
        "device": str(precision.device),
        "precision": precision.named(),
        "seed": spec.seed,
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
