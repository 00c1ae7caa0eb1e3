"""From ``--config`` and ``--set`` to raw settings. The daemon validates them; here only their form is looked at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.assignments import SHORT_FORMS, put
from orchestrator.errors import BadInput

MAX_FILE_BYTES = 256 * 1024
MAX_NODES = 20_000
MAX_DEPTH = 32
PATHS = ("model", "anchor", "source.uri", "publish.directory", "strategy.mixing.reweight.folder")
"""Settings that may name a file; relative ones are meant from where they are written."""
_EVERY = re.compile(r"(\d+(?:\.\d+)?)(s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def read_file(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping: plain values only, no aliases, no key twice, of bounded size.

    Raises:
        BadInput: one line about what is wrong, with its line.
    """
    try:
        data = path.read_bytes()[: MAX_FILE_BYTES + 1]
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > MAX_FILE_BYTES:
        raise BadInput(f"{path} is larger than {MAX_FILE_BYTES} bytes; settings are not data")
    value = _parse(data, str(path))
    if not isinstance(value, dict):
        raise BadInput(f"{path} holds no mapping; write key: value lines")
    return dict(value)


def read_assignment(written: str) -> tuple[str, Any]:
    """``key.path=value`` as key and value; the value is read as YAML.

    Raises:
        BadInput: it is not of this form.
    """
    key, sign, value = written.partition("=")
    if not sign or not re.fullmatch(r"[A-Za-z_][\w-]*(\.[\w-]+)*", key):
        raise BadInput(f"{written!r} is no assignment; write key.path=value, e.g. training.learning_rate=1e-4")
    return key, _parse(value.encode(), key)


def read_interval(written: str) -> float:
    """``6h``, ``30m`` or ``90s`` in seconds.

    Raises:
        BadInput: it is not of this form.
    """
    found = _EVERY.fullmatch(written)
    if found is None or float(found[1]) <= 0:
        raise BadInput(f"{written!r} is no interval; write 90s, 30m, 6h or 1d")
    return float(found[1]) * _SECONDS[found[2]]


def keys(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted key of every leaf."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def resolve_paths(settings: dict[str, Any], base: Path) -> dict[str, Any]:
    """The settings in their long form, every relative path made absolute: the daemon works elsewhere."""
    found = {key: resolve(key, value, base) for key, value in settings.items()}
    return {
        key: {SHORT_FORMS[key]: value} if key in SHORT_FORMS and isinstance(value, str) else value
        for key, value in found.items()
    }


def resolve(key: str, value: Any, base: Path) -> Any:
    """The value, with what names a path made absolute where it is not a URL or a hub id.

    It may be a mapping, or the word that stands for one.
    """
    if isinstance(value, dict):
        return {name: resolve(f"{key}.{name}", one, base) for name, one in value.items()}
    named = f"{key}.{SHORT_FORMS[key]}" if key in SHORT_FORMS else key
    if not isinstance(value, str) or not (named in PATHS or named.startswith("evaluations.")):
        return value
    if "://" in value:
        return value
    path = base / Path(value).expanduser()
    if key == "model" and not path.exists() and not value.startswith((".", "~", "/")):
        return value
    return str(path.absolute())


def _parse(data: bytes, name: str) -> Any:
    import yaml

    from orchestrator.cli.strict_yaml import StrictLoader

    try:
        loader = StrictLoader(data, max_nodes=MAX_NODES, max_depth=MAX_DEPTH)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadInput(f"{name} is not valid YAML: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or str(error).splitlines()[0]
    return f"{said} (line {mark.line + 1})" if mark is not None else str(said)


def merged(settings: dict[str, Any], assignments: Sequence[str], base: Path) -> list[str]:
    """Put every assignment into the settings; the keys that were set."""
    done = []
    for written in assignments:
        key, value = read_assignment(written)
        put(settings, key, resolve(key, value, base))
        done.append(key)
    return done
