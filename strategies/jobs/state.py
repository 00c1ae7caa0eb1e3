"""What a stage leaves for the next one beside its model: the optimizer's moments, and how far its mixing had come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from strategies.errors import BadState
from strategies.settings import Json
from strategies.training.checkpoint import copied

MIXING_FILE = "mixing.json"
OPTIMIZER_FILE = "optimizer.safetensors"


def save_moments(moments: Mapping[str, Tensor], folder: Path) -> None:
    """Write an optimizer's moments by the names of what moves."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(copied(dict(moments)), folder / OPTIMIZER_FILE)


def read_moments(folder: Path) -> dict[str, Tensor]:
    """What :func:`save_moments` left.

    Raises:
        BadState: it cannot be read.
    """
    try:
        return dict(load_file(folder / OPTIMIZER_FILE))
    except (OSError, ValueError) as error:
        raise BadState(f"the optimizer state at {folder} cannot be read; start without it") from error


def save_cursor(state: Json, folder: Path) -> None:
    """Write how far a mixing has come."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MIXING_FILE).write_text(json.dumps({"format": 1, "state": state}))


def read_cursor(folder: Path) -> Json:
    """What :func:`save_cursor` left.

    Raises:
        BadState: it cannot be read.
    """
    try:
        state: Json = json.loads((folder / MIXING_FILE).read_bytes())["state"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadState(f"the mixing state at {folder} cannot be read; start the stage without it") from error
    return state
