"""What a result says about how it came to be."""

from __future__ import annotations

import torch

from strategies.contract import JobSpec
from strategies.inference.precision import Precision
from strategies.libraries import library_versions
from strategies.settings import Json


def common(spec: JobSpec, precision: Precision) -> Json:
    """Versions, threads, precision and seed: the things that change bytes."""
    return {
        "versions": library_versions(),
        "threads": torch.get_num_threads(),
        "device": str(precision.device),
        "precision": precision.named(),
        "seed": spec.seed,
    }
