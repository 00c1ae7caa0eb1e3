"""Open an exported bank, a folder that holds its own base model, with torch, transformers and peft alone."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from .classes import ClassBank
from .domains import DomainBank
from .files import read_manifest
from .opening import open_bank

MODEL = "base"
"""Folder of the base model in an exported bank."""


def load(folder: str | Path, device: str = "cpu") -> ClassBank | DomainBank:
    """The exported bank of ``folder``, ready to ``classify`` texts or to ``generate`` from prompts."""
    path = Path(folder)
    kind = transformers.AutoModel if read_manifest(path).kind == "classes" else transformers.AutoModelForCausalLM
    where = str(path / MODEL)
    base = kind.from_pretrained(where, use_safetensors=True, dtype=torch.float32, local_files_only=True)
    bank = open_bank(base, path)
    bank.tokenizer = transformers.AutoTokenizer.from_pretrained(where, local_files_only=True)
    if bank.tokenizer.pad_token_id is None:
        bank.tokenizer.pad_token = bank.tokenizer.eos_token
    return bank.to(device)
