"""``key.path=value`` put into nested settings: what every face means by it."""

from __future__ import annotations

from typing import Any

from orchestrator.errors import BadInput

SHORT_FORMS = {
    "strategy": "name",
    "source": "uri",
    "strategy.mixing": "kind",
    "strategy.mixing.reweight": "kind",
    "strategy.mixing.domains": "by",
    "strategy.selection": "kind",
    "strategy.schedule": "kind",
    "strategy.objective": "kind",
    "strategy.consolidation": "kind",
    "strategy.consolidation.method": "kind",
    "strategy.consolidation.method.after": "kind",
}
"""Settings that may be written as one word, and the key that the word stands for."""


def put(settings: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; mappings on the way are made, and another ``kind`` begins its mapping anew.

    Raises:
        BadInput: the key leads through something that is no mapping.
    """
    *path, last = key.split(".")
    for at, name in enumerate(path):
        inner = settings.get(name)
        short = SHORT_FORMS.get(".".join(path[: at + 1]))
        if inner is None:
            inner = settings[name] = {}
        elif isinstance(inner, str) and short is not None:
            inner = settings[name] = {short: inner}
        elif not isinstance(inner, dict):
            raise BadInput(f"{key} cannot be set: {name} is no mapping; set {name} as a whole")
        settings = inner
    if last == "kind" and settings.get("kind") != value:
        settings.clear()
    settings[last] = value
