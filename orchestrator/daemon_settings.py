"""Settings of the daemon itself, from ``REKINDLE__SECTION__KEY`` in the environment; a wrong key stops the start."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.errors import BadInput
from strategies.settings import Closed

PREFIX = "REKINDLE__"
NVIDIA_SMI_S = 10


class ServerSettings(Closed):
    """Where REST listens."""

    host: str = Field(
        "127.0.0.1", description="address to listen on; one that is not loopback needs allow_remote and allowed_hosts"
    )
    port: int = Field(7433, ge=0, le=65535, description="port to listen on; 0: any that is free")
    allow_remote: bool = Field(False, description="allow a host that other machines can reach")
    allowed_hosts: tuple[str, ...] = Field(
        (), description="names that requests may have in their Host header, as JSON list"
    )


class DatabaseSettings(Closed):
    """Where the records are kept."""

    url: str | None = Field(None, description="postgresql://… or sqlite:///…; default: rekindle.db in the home")


class ResourceSettings(Closed):
    """What all jobs together may take."""

    cpus: int | None = Field(None, ge=1, description="cores that jobs may use; default: all")
    gpus: tuple[int, ...] | None = Field(
        None, description="indices of the GPUs that jobs may use, as JSON list; default: all that nvidia-smi finds"
    )


class LoggingSettings(Closed):
    """What the daemon writes down."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="least severe messages that go to HOME/logs/daemon.log"
    )


class DaemonSettings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True)
    server: ServerSettings = Field(default_factory=ServerSettings)
    database: DatabaseSettings = Field(default_factory=DatabaseSettings)
    resources: ResourceSettings = Field(default_factory=ResourceSettings)
    logging: LoggingSettings = Field(default_factory=LoggingSettings)


def load(flags: Mapping[str, Mapping[str, Any]] | None = None) -> DaemonSettings:
    """The environment's settings, and over them what the command line gave.

    Raises:
        BadInput: one line about the first wrong key or value.
    """
    _refuse_unknown(os.environ)
    try:
        found = DaemonSettings()
        given = {
            section: {k: v for k, v in values.items() if v is not None} for section, values in (flags or {}).items()
        }
        if not any(given.values()):
            return found
        merged = {
            name: {**getattr(found, name).model_dump(), **given.get(name, {})} for name in DaemonSettings.model_fields
        }
        return DaemonSettings.model_validate(merged)
    except ValidationError as error:
        raise BadInput(_explain(error)) from error


def found_gpus() -> tuple[int, ...]:
    """Indices of the machine's NVIDIA GPUs, asked of nvidia-smi: nothing of CUDA is loaded here."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    argv = [tool, "--query-gpu=index", "--format=csv,noheader"]
    try:
        answer = subprocess.run(argv, capture_output=True, text=True, timeout=NVIDIA_SMI_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(int(line) for line in answer.stdout.split() if line.isdigit())


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    """The settings library overlooks variables that no field asks for; a misspelt one must not be overlooked."""
    known = [
        f"{PREFIX}{section}__{key}".upper()
        for section, field in DaemonSettings.model_fields.items()
        for key in _keys(field.annotation)
    ]
    for name in environment:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            close = get_close_matches(name.upper(), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise BadInput(f"unknown setting {name}; {hint}")


def _keys(section: Any) -> list[str]:
    return list(section.model_fields)


def _explain(error: ValidationError) -> str:
    detail = error.errors(include_url=False)[0]
    name = PREFIX + "__".join(str(part) for part in detail["loc"][:2]).upper()
    return f"{name}: {detail['msg'].removeprefix('Input ').rstrip('.')}, got {detail['input']!r}"
