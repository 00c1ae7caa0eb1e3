"""The data mixing agent: what is asked for is checked here and carried out by a process of its own, which has torch."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import IO, Any

from pydantic import ValidationError

from orchestrator.errors import BadInput, RekindleError
from strategies.agent.requests import REQUEST, Asked, Report

COMMAND = (sys.executable, "-P", "-m", "strategies.agent")
SAID_BYTES = 1 << 16
"""How much of the end of a process's stderr is read for its last line."""


def checked(values: Mapping[str, Any]) -> Asked:
    """What is asked for, as a record.

    Raises:
        BadInput: one line about the first wrong value.
    """
    try:
        return REQUEST.validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"][1:]))
        said = first["msg"].removeprefix("Value error, ")
        raise BadInput(f"{place}: {said}" if place else said) from error


def carry_out(request: Asked, tell: Callable[[Report], None]) -> dict[str, Any]:
    """The result of a process that does it and tells how far it is; what interrupts the wait ends the process.

    Raises:
        RekindleError: it could not be done, in the last line that the process wrote.
    """
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    pipe = subprocess.PIPE
    # A file takes any number of warnings; a pipe that nobody reads meanwhile would stop the process when it is full.
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=environment) as process:
            try:
                _ask(process, request)
                found = _listen(process, tell)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0 or found is None:
            raise RekindleError(_last_line(errors) or f"it ended with exit code {process.returncode}")
    return found


def _ask(process: subprocess.Popen[str], request: Asked) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it ended before it read; what it wrote says why
        process.stdin.write(request.model_dump_json())
        process.stdin.close()


def _listen(process: subprocess.Popen[str], tell: Callable[[Report], None]) -> dict[str, Any] | None:
    assert process.stdout is not None
    for line in process.stdout:
        told: dict[str, Any] = json.loads(line)
        if "result" in told:
            return dict(told["result"])
        tell(Report.model_validate(told))
    return None


def _last_line(errors: IO[bytes]) -> str:
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - SAID_BYTES))
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
