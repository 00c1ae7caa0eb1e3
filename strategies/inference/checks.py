"""Refuse a model folder that could run code or that holds pickles, before any library reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from strategies.errors import Refused
from strategies.inference.names import ADAPTER_CONFIG

CONFIGS = ("config.json", "tokenizer_config.json", "generation_config.json", ADAPTER_CONFIG)
MAX_CONFIG_BYTES = 64 << 20
PRIVATE_KEYS = frozenset(
    {
        "_name_or_path",
        "_commit_hash",
        "_from_model_config",
        "_attn_implementation_autoset",
        "_sliding_window_pattern",
        "_remove_final_layer_norm",
    }
)
"""Underscore keys that transformers itself writes (the last two of Gemma 3 and OPT) and that choose no code."""


def check_folder(folder: Path, *, trust_remote_code: bool) -> None:
    """Refuse remote code, unknown private settings and folders without safetensors."""
    for name in CONFIGS:
        if (folder / name).exists():
            _check_config(folder / name, trust_remote_code=trust_remote_code)
    if not any(folder.glob("*.safetensors")):
        raise Refused(f"{folder} has no safetensors weights; convert the model with save_pretrained")


def _check_config(path: Path, *, trust_remote_code: bool) -> None:
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise Refused(f"{path} is larger than a configuration can be")
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise Refused(f"{path} is not JSON: {error}") from error
    for key in _keys(config):
        if key == "auto_map" and not trust_remote_code:
            raise Refused(
                f"{path} names code of its own (auto_map); register the stream with trust_remote_code to run it"
            )
        if key.startswith("_") and key not in PRIVATE_KEYS:
            raise Refused(f"{path} sets the private key {key}; remove it")
        if key == "auto_mapping" and config.get(key):
            raise Refused(f"{path} names a library class to import (auto_mapping); remove it")


def _keys(value: Any, depth: int = 0) -> list[str]:
    """Keys of a configuration and of the sub-configurations in it (not of vocabularies or label maps)."""
    if not isinstance(value, dict) or depth > 3:
        return []
    skipped = {"id2label", "label2id", "added_tokens_decoder", "extra_special_tokens"}
    nested = [key for name, part in value.items() if name not in skipped for key in _keys(part, depth + 1)]
    return [str(key) for key in value] + nested
