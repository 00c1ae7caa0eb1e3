"""From files to a bank that answers: the one way in for evaluation, export and serving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .adapted import attach
from .classes import ClassBank
from .domains import DomainBank
from .files import HEAD, VECTORS, BadBank, Manifest, read_manifest, read_tensors


def open_bank(base: Any, folder: Path) -> ClassBank | DomainBank:
    """The bank of ``folder`` on ``base``: a body without a head for classes, a causal language model for domains.

    Raises:
        BadBank: a file is missing or changed, or the base is another one.
    """
    manifest = read_manifest(folder)
    vectors = read_tensors(folder, VECTORS, manifest)
    if manifest.kind == "domains":
        return DomainBank(attach(base, folder, manifest), vectors, manifest=manifest, folder=folder).eval()
    head = _head(read_tensors(folder, HEAD, manifest), manifest)
    body = attach(base, folder, manifest)
    bank = ClassBank(body, head, vectors["prototypes"], manifest=manifest, folder=folder)
    return bank.eval()


def _head(tensors: dict[str, Tensor], manifest: Manifest) -> nn.Linear:
    rows, width = tensors["weight"].shape
    if rows != len(manifest.labels):
        raise BadBank(f"the head has {rows} rows for {len(manifest.labels)} classes; copy the bank anew")
    head = nn.Linear(width, rows, bias="bias" in tensors)
    head.load_state_dict(tensors)
    return head.requires_grad_(False)
