"""The files of a bank: written once, named by digests, read without running anything."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

FORMAT = 2
"""1 had digests of an adapter's tensors and scale alone."""
MANIFEST = "router.json"
ADAPTERS = "adapters"
HEAD = "head.safetensors"
VECTORS = "router.safetensors"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
SAMPLED = 64
Form = Literal["text", "plain", "template"]
"""How a prompt is written: a text that is gone on from, messages one a line, or messages in the chat template."""
_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}$")


class BadBank(ValueError):  # noqa: N818 - the name says what went wrong
    """A bank on disk that is torn, changed, of another base model, or of a newer format."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One adapter of a bank, in the order of the tasks; ``sha256`` is :func:`adapter_digest`.

    ``sources`` names the data that it was taught, where the bank says so.
    """

    name: str
    sha256: str
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """``router.json``, with a digest of itself. ``owners`` gives for each of ``labels`` the place of its adapter, or -1
    if no task had it.

    ``form`` is how a language model's prompts were written (:data:`Form`); banks that do not say it were
    asked with plain texts. A prompt is as far as it may be of the longest of ``lengths`` that it reaches.
    """

    kind: Literal["classes", "domains"]
    base: str
    adapters: tuple[Entry, ...]
    labels: tuple[str, ...] = ()
    owners: tuple[int, ...] = ()
    pooling: str = "mean"
    rounds: int = 4
    max_length: int = 256
    prior: str = "cosine"
    temperature: float | None = None
    threshold: float = 0.0
    layer: int = 0
    form: Form = "text"
    lengths: tuple[int, ...] = (1,)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(entry.name for entry in self.adapters)


def read_manifest(folder: Path) -> Manifest:
    """``router.json`` of a bank; refuses newer formats and names that are no plain folder names."""
    try:
        found: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        if found.pop("format") != FORMAT:
            raise BadBank(f"{folder / MANIFEST} has a format that this version cannot read; use the one that wrote it")
        if found.pop("sha256") != _digest_of(found):
            raise BadBank(f"{folder / MANIFEST} is not what was stored; restore the folder")
        entries = tuple(
            Entry(**{**entry, "sources": tuple(entry.get("sources", ()))}) for entry in found.pop("adapters")
        )
        found |= {name: tuple(found[name]) for name in ("labels", "owners", "lengths") if name in found}
        made = Manifest(**found, adapters=entries)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise (
            error if isinstance(error, BadBank) else BadBank(f"{folder / MANIFEST} cannot be read: {error}")
        ) from error
    _check(made, folder)
    return made


def _check(manifest: Manifest, folder: Path) -> None:
    known = set(manifest.names)
    if not known or len(known) < len(manifest.adapters) or not all(_NAME.match(name) for name in known):
        raise BadBank(f"{folder / MANIFEST} needs adapters with different plain names")
    known_kind = manifest.kind in {"classes", "domains"} and manifest.form in get_args(Form)
    if not known_kind or not set(manifest.files) <= {HEAD, VECTORS}:
        raise BadBank(f"{folder / MANIFEST} describes a kind of bank that this version does not know")
    if len(manifest.owners) != len(manifest.labels) or any(not -1 <= at < len(known) for at in manifest.owners):
        raise BadBank(f"{folder / MANIFEST} gives classes to adapters that it does not have")


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """``router.json``, the last file of a bank to be written."""
    values = {item.name: getattr(manifest, item.name) for item in fields(manifest)}
    values["adapters"] = [asdict(entry) for entry in manifest.adapters]
    values = {"format": FORMAT, "sha256": _digest_of(values), **values}
    (folder / MANIFEST).write_text(json.dumps(values, indent=2, ensure_ascii=False))


def _digest_of(values: Mapping[str, Any]) -> str:
    """The sha256 of a manifest's values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors; returns the file's sha256."""
    save_file({name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}, path)
    return file_digest(path)


def read_tensors(folder: Path, name: str, manifest: Manifest) -> dict[str, Tensor]:
    """Tensors of one of the bank's files, which must have the sha256 it was written with."""
    path = folder / name
    if name not in manifest.files or not path.exists() or file_digest(path) != manifest.files[name]:
        raise BadBank(f"{path} is missing or is not what {MANIFEST} names; copy the bank anew")
    return dict(load_file(path))


def file_digest(path: Path) -> str:
    """The sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_adapter(folder: Path, entry: Entry) -> dict[str, Tensor]:
    """Tensors of a stored adapter by PEFT's names, which must have the digest that the bank gives it."""
    try:
        tensors, config = _adapter_at(folder / ADAPTERS / entry.name)
    except (OSError, ValueError) as error:
        raise BadBank(f"adapter {entry.name} of {folder} cannot be read: {error}") from error
    if adapter_digest(tensors, config) != entry.sha256:
        raise BadBank(f"adapter {entry.name} of {folder} is not the one that was stored; restore the folder")
    return tensors


def stored_digest(folder: Path) -> str:
    """The digest of the PEFT folder of one adapter."""
    return adapter_digest(*_adapter_at(folder))


def _adapter_at(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return dict(load_file(folder / ADAPTER_WEIGHTS)), json.loads((folder / ADAPTER_CONFIG).read_bytes())


def adapter_digest(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    """One sha256 over an adapter's tensors (name, type, shape, bytes) and its settings, all of them."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        _add(digest, name, tensors[name])
    return digest.hexdigest()


def base_digest(base: nn.Module) -> str:
    """Names a base model by its parameters' names and shapes and numbers spread evenly over each, in float32.

    Buffers and adapters do not count, nor do the task's head and a pooler, which a body has or lacks depending on the
    class that it was loaded as: the same body has the same name under any of them.
    """
    digest = hashlib.sha256()
    for name, parameter in base.named_parameters():
        if name.startswith("pooler."):
            continue
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        flat = parameter.detach().flatten()
        count = min(SAMPLED, len(flat))
        _add(digest, "", flat[torch.arange(count) * (len(flat) - 1) // max(1, count - 1)].float())
    return digest.hexdigest()


def _add(digest: Any, name: str, tensor: Tensor) -> None:
    plain = tensor.detach().to("cpu").contiguous()
    digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
    digest.update(plain.flatten().view(torch.uint8).numpy().tobytes())
