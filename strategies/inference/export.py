"""Write a model as plain Hugging Face and PEFT folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from strategies.contract import ModelFiles
from strategies.errors import Refused
from strategies.inference.load import load
from strategies.inference.names import ADAPTER_CONFIG, LABELS_FILE, WEIGHT_FILES
from strategies.settings import Task

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spiece.model",
    "chat_template.jinja",
)

SETS = frozenset({"target_modules", "modules_to_save", "exclude_modules"})


def save_model(model: Any, folder: Path, *, tokenizer: Any, parent: str, dtype: torch.dtype) -> None:
    """Safetensors, configuration and tokenizer; what the parent has of the tokenizer is copied byte for byte.

    Tensors are called as the parent's are: what stayed is then stored once, which goes by name and bytes.
    """
    model.to(dtype).save_pretrained(folder)
    _name_as(Path(parent), folder, prefix=f"{getattr(model, 'base_model_prefix', '')}.")
    save_tokenizer(tokenizer, folder, parent=parent)


def _name_as(parent: Path, folder: Path, *, prefix: str) -> None:
    """Take the architecture's prefix off where the parent is stored without it, as many on the hub are (``h.0.ln_1``).

    Only where the parent has all names without it. A new head beside such names would be read as part of the body by
    earlier transformers: such a version keeps the full names, and is stored anew once.
    """
    known, own = _names(parent), _names(folder)
    short = {name: name.removeprefix(prefix) for name in own}
    if known >= own or not set(short.values()) <= known:
        return
    for file in folder.glob(WEIGHT_FILES):
        named = {short[name]: tensor for name, tensor in load_file(file).items()}
        save_file(named, file, metadata={"format": "pt"})
    for file in folder.glob("*.index.json"):
        index = json.loads(file.read_bytes())
        index["weight_map"] = {short[name]: part for name, part in index["weight_map"].items()}
        file.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _names(folder: Path) -> set[str]:
    """Names of all tensors of a folder's weights; none of a model that is elsewhere."""
    found: set[str] = set()
    for file in folder.glob(WEIGHT_FILES):
        with safe_open(file, "pt") as tensors:
            found.update(tensors.keys())
    return found


def save_tokenizer(tokenizer: Any, folder: Path, *, parent: str) -> None:
    """The tokenizer's files."""
    files = [Path(parent) / name for name in TOKENIZER_FILES]
    if not any(file.exists() for file in files):
        tokenizer.save_pretrained(folder)
    for file in files:
        if file.exists():
            shutil.copyfile(file, folder / file.name)


def save_adapter(model: Any, folder: Path, *, labels: tuple[str, ...]) -> None:
    """The PEFT folder; it names no base by path, because a base is named by the version's lineage."""
    model.save_pretrained(folder, save_embedding_layers=False)
    plain_adapter(folder)
    if labels:
        (folder / LABELS_FILE).write_text(json.dumps({"format": 1, "labels": list(labels)}))


def plain_adapter(folder: Path) -> None:
    """Make a folder that peft wrote the same bytes whenever the same adapter is written, without a base by path."""
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / ADAPTER_CONFIG
    config = {**json.loads(path.read_bytes()), "base_model_name_or_path": None}
    # peft writes sets in the order of the moment; the same adapter must be the same bytes.
    sets = {name: sorted(value) for name, value in config.items() if name in SETS and isinstance(value, list)}
    path.write_text(json.dumps({**config, **sets}, indent=2, sort_keys=True))


def export_merged(files: ModelFiles, task: Task, folder: Path) -> None:
    """One ordinary folder of the version: an adapter is merged into the weights."""
    if files.bank is not None:
        raise Refused("adapters of a bank answer different requests and cannot be merged into one; export the bank")
    loaded = load(files, task, device=torch.device("cpu"))
    model = loaded.model.merge_and_unload() if files.adapter is not None else loaded.model
    save_model(model, folder, tokenizer=loaded.tokenizer, parent=files.path, dtype=loaded.published_dtype)
