"""An agent's folder: what its two files are called, and the hash that a plan names it by; light, without torch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from strategies.errors import BadState

CARD = "agent.json"
WEIGHTS = "agent.safetensors"
FORMAT = 1
"""Of the card; a newer one is refused."""


def fingerprint(folder: Path) -> str:
    """sha256 of the card, which names the weights' hash; both files are read.

    Raises:
        BadState: they are missing, of a newer format, or not what belongs together.
    """
    card, data = read_card(folder)
    read_weights(folder, str(card.get("weights_sha256")))
    return hashlib.sha256(data).hexdigest()


def read_card(folder: Path) -> tuple[dict[str, object], bytes]:
    """The card's values and bytes.

    Raises:
        BadState: it is missing, no JSON object, or of a newer format.
    """
    try:
        data = (folder / CARD).read_bytes()
        found = json.loads(data)
    except (OSError, ValueError) as error:
        raise BadState(f"there is no agent at {folder}: {CARD} cannot be read ({_reason(error)})") from error
    if not isinstance(found, dict):
        raise BadState(f"there is no agent at {folder}: {CARD} is no JSON object; fit the agent anew")
    version = found.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise BadState(f"{CARD} is of format {version}, this version reads {FORMAT}: update Rekindle")
    return found, data


def read_weights(folder: Path, sha256: str) -> bytes:
    """The weights, which must have that hash.

    Raises:
        BadState: they are missing, or other ones.
    """
    try:
        weights = (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise BadState(f"there is no agent at {folder}: {WEIGHTS} cannot be read ({_reason(error)})") from error
    if hashlib.sha256(weights).hexdigest() != sha256:
        raise BadState(f"{WEIGHTS} at {folder} is not what {CARD} was written with: fit the agent anew")
    return weights


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "no JSON"
