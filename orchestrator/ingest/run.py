"""Ingest in a process of its own: what the daemon uses, so that no file can hurt it.

The child gets a spec file, bounds its memory and time, and writes the report or the error to stdout as a line of JSON.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import BadInput, Conflict, NotFound, RekindleError, Unavailable
from orchestrator.home import Home
from orchestrator.ingest.records import IngestApp, IngestReport, Kind, Refused, escape
from orchestrator.ingest.spool import disk_trouble
from storage.artifacts import ArtifactStore
from storage.database import Database

MEMORY_BYTES = 1 << 30
TIMEOUT_S = 6 * 3600.0
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "SSL_CERT_FILE", "HTTPS_PROXY", "NO_PROXY")
_ENVIRONMENT_PREFIXES = ("HF_", "AWS_", "AZURE_", "GOOGLE_", "FSSPEC_")


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """What ingest needs of the app, made anew in the child."""

    home: Home
    database: Database
    store: ArtifactStore


def spawn(
    app: IngestApp,
    stream_id: str,
    *,
    path: str | Path | Sequence[Path],
    name: str,
    kind: Kind = "data",
    actor: str,
    synthetic: bool = False,
    ad_hoc: bool = False,
) -> IngestReport:
    """Like :func:`orchestrator.ingest.arrival.ingest`, in a child process.

    Raises:
        RekindleError: what the child raised.
        Refused: the child crashed on the file, or needed more memory than it may have.
        Unavailable: the child was killed or ran out of time, or the disk is full.
    """
    spec = {
        "format": 1,
        "home": str(app.home.root),
        "database_url": app.database.url,
        "stream_id": stream_id,
        "path": [str(one) for one in path] if not isinstance(path, str | Path) else str(path),
        "exact": not isinstance(path, str),
        "name": name,
        "kind": kind,
        "actor": actor,
        "synthetic": synthetic,
        "ad_hoc": ad_hoc,
        "memory_bytes": MEMORY_BYTES,
        "timeout_s": TIMEOUT_S,
    }
    with disk_trouble(app.home.spool):
        app.home.spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=app.home.spool, prefix=".spec-", suffix=".json") as file:
            json.dump(spec, file)
            file.flush()
            return _run(Path(file.name))


def _run(spec: Path) -> IngestReport:
    command = [sys.executable, "-P", "-m", "orchestrator.ingest", str(spec)]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=spec.parent,
        env=_environment(),
        start_new_session=True,
    ) as child:
        timer = threading.Timer(TIMEOUT_S, child.kill)
        timer.start()
        try:
            last, noise = _listen(child.stdout or ())
        finally:
            timer.cancel()
            if child.poll() is None and sys.exc_info()[0] is not None:
                child.kill()
    return _outcome(child.returncode, last, noise)


def _environment() -> dict[str, str]:
    kept = {
        key: value for key, value in os.environ.items() if key in _ENVIRONMENT or key.startswith(_ENVIRONMENT_PREFIXES)
    }
    # Arrow's own allocators keep what they once had; the C library's gives it back.
    return kept | {"OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2"}


def _listen(lines: Iterable[bytes]) -> tuple[dict[str, Any], list[str]]:
    last: dict[str, Any] = {}
    noise: deque[str] = deque(maxlen=5)
    for line in lines:
        try:
            last = json.loads(line)
        except ValueError:
            noise.append(escape(line.decode("utf-8", "replace").strip()))
    return last, list(noise)


def _outcome(code: int, last: dict[str, Any], noise: list[str]) -> IngestReport:
    if "report" in last:
        return IngestReport.model_validate(last["report"])
    if "error" in last:
        raise _error(last["error"]["code"], last["error"]["message"])
    if code == -9:
        raise Unavailable("the ingest process was killed (out of time or memory); nothing was kept, try again")
    why = f"by signal {-code}" if code < 0 else f"with code {code}"
    said = f": {noise[-1]}" if noise else ""
    raise Refused(f"the ingest process ended {why} on this file{said}; nothing of it was kept")


def _error(code: str, message: str) -> RekindleError:
    known: list[type[RekindleError]] = [Refused, BadInput, NotFound, Conflict, Unavailable]
    return next((kind for kind in known if kind.code == code), RekindleError)(message)


def main(arguments: Sequence[str]) -> int:
    """Carry out the ingest of a spec file."""
    # Brings scipy, which the daemon does without; before the limit, because its start-up hangs where memory is short.
    from orchestrator.ingest.arrival import ingest

    spec = json.loads(Path(arguments[0]).read_text())
    # Ends this process even if nobody is left to kill it.
    signal.alarm(math.ceil(spec["timeout_s"]) + 60)
    resource.setrlimit(resource.RLIMIT_DATA, (spec["memory_bytes"], spec["memory_bytes"]))
    try:
        _say({"report": _carry_out(spec, ingest).model_dump()})
    except MemoryError:
        _say({"error": {"code": Refused.code, "message": "the file needs more memory than ingest may have; split it"}})
    except RekindleError as error:
        _say({"error": {"code": error.code, "message": error.message}})
    else:
        return 0
    return 1


def _carry_out(spec: dict[str, Any], ingest: Callable[..., IngestReport]) -> IngestReport:
    home = Home(root=Path(spec["home"]))
    path = spec["path"]
    if spec["exact"]:
        path = Path(path) if isinstance(path, str) else [Path(one) for one in path]
    parts = _Parts(home=home, database=Database.open(spec["database_url"]), store=ArtifactStore(home.artifacts))
    return ingest(
        parts,
        spec["stream_id"],
        path=path,
        name=spec["name"],
        kind=spec["kind"],
        actor=spec["actor"],
        synthetic=spec["synthetic"],
        ad_hoc=spec["ad_hoc"],
    )


def _say(message: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
