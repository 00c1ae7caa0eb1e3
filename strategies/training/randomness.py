"""Every random stream of the process by value, so that a resumed run goes on with the very next number."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor

from strategies.errors import BadState
from strategies.settings import Json


def seed_all(seed: int) -> None:
    """Start all streams anew."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def capture() -> tuple[Json, dict[str, Tensor]]:
    """Values and tensors of all streams."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    values = {
        "python": [version, gauss],
        "numpy": [str(name), int(position), int(has_gauss), float(cached)],
        "cuda": torch.cuda.device_count() if torch.cuda.is_initialized() else 0,  # type: ignore[no-untyped-call]
    }
    tensors = {
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.from_numpy(np.asarray(keys).astype(np.int64)),
        "torch": torch.get_rng_state(),
    }
    for index in range(values["cuda"]):  # type: ignore[call-overload]
        tensors[f"cuda.{index}"] = torch.cuda.get_rng_state(index)
    return values, tensors


def restore(values: Json, tensors: dict[str, Tensor]) -> None:
    """Go on from :func:`capture`."""
    version, gauss = values["python"]
    random.setstate((version, tuple(tensors["python"].tolist()), gauss))
    name, position, has_gauss, cached = values["numpy"]
    keys = tensors["numpy"].numpy().astype(np.uint32)
    np.random.set_state((name, keys, position, has_gauss, cached))
    torch.set_rng_state(tensors["torch"])
    if values["cuda"] > torch.cuda.device_count():
        raise BadState("the checkpoint was written with more GPUs than there are; start the job anew")
    for index in range(values["cuda"]):
        torch.cuda.set_rng_state(tensors[f"cuda.{index}"], index)
