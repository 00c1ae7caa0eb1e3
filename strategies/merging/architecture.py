"""Which of a folder's tensors its architecture reads: a file may hold more, which loading leaves aside.

Models as published hold buffers that are computed anew today (GPT-2's ``attn.bias``, BERT's ``position_ids``), and
tied tensors twice. A model that was trained here holds neither.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import transformers

from strategies.merging.models import Folder, spelled
from strategies.settings import Task


def unread(folder: Folder, names: Iterable[str], task: Task) -> set[str]:
    """Those of a folder's tensors that its architecture has no place for, or that only repeat the one they are tied to.

    Empty for an architecture that transformers does not know.
    """
    places = _places(folder, task)
    return {name for name in names if places and _is_unread(folder, name, places)}


def _places(folder: Folder, task: Task) -> dict[str, str]:
    """Each tensor of the architecture, and the name of the one that it is: another's where the two are tied."""
    options = {"trust_remote_code": folder.trust_remote_code}
    kind = (
        transformers.AutoModelForSequenceClassification
        if task == "classification"
        else transformers.AutoModelForCausalLM
    )
    try:
        config = transformers.AutoConfig.from_pretrained(folder.path, local_files_only=True, **options)
        with torch.device("meta"):
            model = kind.from_config(config, **options)
    except (OSError, ValueError, RuntimeError):
        # RuntimeError: some compute with numbers while they are made, and meta tensors have none.
        return {}
    first: dict[int, str] = {}
    return {name: first.setdefault(id(one), name) for name, one in model.state_dict(keep_vars=True).items()}


def _is_unread(folder: Folder, name: str, places: dict[str, str]) -> bool:
    place = spelled(name, places)
    if place is None:
        return True
    other = places[place]
    # Where a file's two tensors differ, transformers does not tie them, whatever the configuration says.
    return other != place and folder.has(other) and torch.equal(folder.raw(name), folder.raw(other))
