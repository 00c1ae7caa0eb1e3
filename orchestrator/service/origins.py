"""Where each value of a strategy comes from: the user's own words, a kind's defaults, or the named strategy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.assignments import SHORT_FORMS
from strategies.chooser import auto
from strategies.chooser.choice import StrategySettings

DEFAULT = "default"
CHOSEN = "chosen at each retrain"
ROOT = "strategy"


def by_leaf(given: Mapping[str, Any], origins: Mapping[str, str]) -> dict[str, str]:
    """The origins under the keys that were really written: a mapping given as a whole is taken apart.

    ``given`` are settings, nested or under dotted keys.
    """
    found: dict[str, str] = {}
    for key, origin in origins.items():
        value = _value(given, key)
        inside = [one for one, _ in leaves(value, f"{key}.")] if isinstance(value, dict) else [key]
        found |= dict.fromkeys(inside, origin)
    return found


def carried(earlier: Mapping[str, str], settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, str]:
    """Origins of earlier settings that still hold after ``changes``: what was replaced as a whole has lost its own."""
    replaced = [f"{key}." for key in changes]
    replaced += [
        key.removesuffix("kind")
        for key, value in changes.items()
        if key.endswith(".kind") and _value(settings, key) != value
    ]
    return {
        key: origin for key, origin in earlier.items() if key not in changes and not key.startswith(tuple(replaced))
    }


def strategy_origin(key: str, chosen: StrategySettings, shown: Mapping[str, Any], origins: Mapping[str, str]) -> str:
    """The origin of one leaf of the strategy; ``shown`` is the strategy as it stands."""
    field = key.split(".")[1]
    if field == "name":
        return origins.get(key) or origins.get(ROOT) or DEFAULT
    if field == "probe":
        return origins.get(key, DEFAULT)
    if getattr(chosen, field) is None:
        return CHOSEN if chosen.name == auto.NAME else f"strategy {chosen.name}"
    usual = auto.USUAL.name if chosen.name == auto.NAME else chosen.name
    return origins.get(key) or _inherited(key, shown, origins) or f"strategy {usual}"


def leaves(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Dotted key and value of every leaf; lists and empty mappings are leaves."""
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            found += leaves(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


def _inherited(key: str, shown: Mapping[str, Any], origins: Mapping[str, str]) -> str | None:
    """From the nearest mapping around a leaf that was given by a word or by its kind."""
    for around in _around(key):
        word = f"{around}.{SHORT_FORMS.get(around, 'kind')}"
        if around in origins:
            return origins[around] if word == key else f"default of {_value({ROOT: shown}, word)}"
        if f"{around}.kind" in origins:
            return f"default of {_value({ROOT: shown}, f'{around}.kind')}"
    return None


def _around(key: str) -> Iterator[str]:
    """The mappings around a leaf within one screw, the nearest first."""
    parts = key.split(".")
    return (".".join(parts[:length]) for length in range(len(parts) - 1, 1, -1))


def _value(settings: Mapping[str, Any], key: str) -> Any:
    if key in settings:
        return settings[key]
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value
