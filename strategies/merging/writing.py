"""Write a merged model as an ordinary Hugging Face folder, one tensor at a time."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import shutil
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from strategies.errors import Diverged
from strategies.inference.export import TOKENIZER_FILES
from strategies.inference.load import adapter_labels, stored_dtype
from strategies.inference.names import WEIGHTS
from strategies.merging.models import DTYPES, Adapted, Model, folder_of
from strategies.settings import Json

NAMES = {dtype: name for name, dtype in DTYPES.items()}
COPIED = ("generation_config.json", *TOKENIZER_FILES)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor of a file to be written."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def length(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_tensors(path: Path, entries: Sequence[Entry], tensor: Callable[[str], Tensor]) -> str:
    """Write a safetensors file, its tensors made one after the other; returns its sha256.

    Raises:
        Diverged: a tensor is not finite.
    """
    entries = sorted(entries, key=lambda entry: (-entry.dtype.itemsize, entry.name))
    hashed = hashlib.sha256()
    with path.open("wb") as file:
        for data in itertools.chain([_header(entries)], (_bytes(entry, tensor(entry.name)) for entry in entries)):
            hashed.update(data)
            file.write(data)
    return hashed.hexdigest()


def _header(entries: Sequence[Entry]) -> bytes:
    records: Json = {"__metadata__": {"format": "pt"}}
    at = 0
    for entry in entries:
        offsets = [at, at + entry.length]
        records[entry.name] = {"dtype": NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": offsets}
        at += entry.length
    text = json.dumps(records, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _bytes(entry: Entry, tensor: Tensor) -> bytes:
    if tensor.is_floating_point() and not torch.isfinite(tensor := tensor.to(entry.dtype)).all():
        raise Diverged(f"merged tensor {entry.name} is not finite; nothing is published: merge with a smaller lam")
    if tuple(tensor.shape) != entry.shape:
        raise ValueError(f"tensor {entry.name} became {list(tensor.shape)}, not {list(entry.shape)}")
    return tensor.to(entry.dtype).contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def write_model(
    folder: Path, *, shaped: Model, base: Model, names: Sequence[str], tensor: Callable[[str], Tensor]
) -> str:
    """A Hugging Face folder with ``shaped``'s architecture and classes, and dtype and tokenizer of ``base``.

    Returns the sha256 of the weights.
    """
    folder.mkdir(parents=True)
    dtype = stored_dtype(folder_of(base).path)
    entries = [_entry(name, shaped, base, dtype) for name in names]
    sha256 = write_tensors(folder / WEIGHTS, entries, tensor)
    config = {**shaped.config, **_classes(shaped)}
    config.pop("torch_dtype", None)
    if dtype is not None:
        config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    source = folder_of(base).path
    copy_files(source, folder, (*COPIED, *(file.name for file in source.glob("*.py"))))
    return sha256


def copy_files(source: Path, folder: Path, names: Sequence[str]) -> None:
    """Copy those of ``names`` that ``source`` has, byte for byte."""
    for name in names:
        if (source / name).exists():
            shutil.copyfile(source / name, folder / name)


def _entry(name: str, shaped: Model, base: Model, dtype: torch.dtype | None) -> Entry:
    found = (base if base.has(name) else shaped).dtype(name)
    return Entry(
        name=name,
        dtype=dtype if dtype is not None and found.is_floating_point else found,
        shape=shaped.shape(name),
    )


def _classes(shaped: Model) -> Json:
    """An adapter's classes, which its folder's configuration does not name."""
    labels = adapter_labels(shaped.adapter) if isinstance(shaped, Adapted) else ()
    if not labels:
        return {}
    return {
        "id2label": {str(index): label for index, label in enumerate(labels)},
        "label2id": {label: index for index, label in enumerate(labels)},
    }
