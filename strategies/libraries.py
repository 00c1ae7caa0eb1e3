"""The libraries whose versions change numbers; imports none of them."""

from __future__ import annotations

import importlib.metadata
import platform

LIBRARIES = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy", "pyarrow")


def library_versions() -> dict[str, str]:
    """Python's version, and that of every library that is installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
