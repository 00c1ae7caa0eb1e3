"""Bringing a base model into the store: a folder or a hub id, weights in safetensors only.

``python -m orchestrator.base_model SOURCE STORE [--revision R] [--cache DIR] [--code]`` prints one line of JSON:
``{"manifest": HASH, "facts": {...}}`` or ``{"error": "..."}``. It runs in a process of its own, because it hashes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from orchestrator.errors import BadInput, RekindleError
from orchestrator.settings import StreamSettings
from storage.artifacts import ArtifactStore
from storage.errors import StorageError

WANTED = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.jinja",
)
"""What a model folder is made of; anything else stays where it is. Code comes along only when it is trusted."""
ENCODERS = frozenset(
    {"bert", "distilbert", "roberta", "xlm-roberta", "electra", "albert", "deberta", "deberta-v2", "mpnet"}
)


def check(settings: StreamSettings) -> None:
    """Refuse what can be seen to be wrong before anything is written.

    Raises:
        BadInput: no such folder, not a model, weights only as pickles, or a model that cannot do the task.
    """
    folder = Path(settings.model)
    if not folder.exists():
        if _looks_like_path(settings.model):
            raise BadInput(
                f"there is no model at {settings.model}; give a folder with config.json and safetensors, or a hub id"
            )
        return
    config = _config(folder)
    if not any(folder.glob("*.safetensors")):
        raise BadInput(
            f"{settings.model} has no *.safetensors; save the model with save_pretrained first (pickles are never read)"
        )
    if config.get("auto_map") and not settings.trust_remote_code:
        raise BadInput(f"{settings.model} brings code of its own; set trust_remote_code: true only if you trust it")
    generates = settings.task in ("causal-lm", "sft")
    if generates and config.get("model_type") in ENCODERS:
        raise BadInput(
            f"{settings.model} is an encoder ({config['model_type']}): it can do classification, not {settings.task}"
        )


def bring(settings: StreamSettings, *, store: Path, cache: Path) -> tuple[str, dict[str, Any]]:
    """Import the model in a process of its own; its manifest's hash and facts about it.

    Raises:
        BadInput: it cannot be had or is not a model.
    """
    command = [sys.executable, "-P", "-m", "orchestrator.base_model", settings.model, str(store), "--cache", str(cache)]
    command += ["--revision", settings.revision] if settings.revision else []
    command += ["--code"] if settings.trust_remote_code else []
    ran = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    lines = ran.stdout.strip().splitlines()
    answer: dict[str, Any] = (
        json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {"error": _last_line(ran.stderr)}
    )
    if "error" in answer:
        raise BadInput(f"the model {settings.model} could not be read: {answer['error']}")
    return answer["manifest"], answer["facts"]


def main(arguments: list[str]) -> int:
    """The process."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.base_model")
    parser.add_argument("source")
    parser.add_argument("store", type=Path)
    parser.add_argument("--revision")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--code", action="store_true")
    given = parser.parse_args(arguments)
    try:
        folder, commit = _fetch(given.source, given.revision, given.cache, given.code)
        manifest, facts = _store(folder, ArtifactStore(given.store), given.code)
    except (RekindleError, StorageError, OSError) as error:
        print(json.dumps({"error": str(error).splitlines()[0] if str(error) else type(error).__name__}))
        return 1
    print(json.dumps({"manifest": manifest, "facts": {**facts, "source": given.source, "revision": commit}}))
    return 0


def _looks_like_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.count("/") != 1


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadInput(f"{folder} has no config.json; give a Hugging Face model folder") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} is not a model's config; give a Hugging Face model folder")
    return found


def _fetch(source: str, revision: str | None, cache: Path, code: bool) -> tuple[Path, str | None]:
    if Path(source).is_dir():
        return Path(source), None
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise BadInput("a hub id needs huggingface_hub; install it with: pip install 'rekindle[train]'") from error
    patterns = [*WANTED, "*.py"] if code else list(WANTED)
    try:
        folder = Path(snapshot_download(source, revision=revision, cache_dir=cache, allow_patterns=patterns))
    except Exception as error:  # the hub client has many; each means that the model cannot be had
        raise BadInput(f"it is no folder, and the hub has no answer for it ({_last_line(str(error))})") from error
    return folder, folder.name


def _store(folder: Path, store: ArtifactStore, code: bool) -> tuple[str, dict[str, Any]]:
    config = _config(folder)
    patterns = [*WANTED, "*.py"] if code else list(WANTED)
    with tempfile.TemporaryDirectory(dir=store.root) as staging:
        for path in {found for pattern in patterns for found in folder.glob(pattern) if found.is_file()}:
            os.symlink(path.resolve(), Path(staging) / path.name)
        manifest = store.add_model_folder(Path(staging))
    return manifest.hash, {
        "labels": _labels(config),
        "model_type": config.get("model_type"),
        "tokenizer": _tokenizer(folder),
    }


def _labels(config: dict[str, Any]) -> list[str]:
    """The classes that a classifier knows; an untrained head has the placeholder names that transformers gives."""
    architectures = config.get("architectures") or []
    named = config.get("id2label") or {}
    if not any(str(one).endswith("ForSequenceClassification") for one in architectures):
        return []
    labels = [str(named[key]) for key in sorted(named, key=int)]
    return [] if all(label == f"LABEL_{number}" for number, label in enumerate(labels)) else labels


def _tokenizer(folder: Path) -> str | None:
    path = folder / "tokenizer.json"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:300] if lines else "no answer"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
