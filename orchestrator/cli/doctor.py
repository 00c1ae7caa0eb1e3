"""``rekindle doctor``: one finding a check, each with what to do. It works without a daemon, and beside one."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from orchestrator.cli import client
from orchestrator.errors import BadInput, RekindleError
from orchestrator.home import Home

if TYPE_CHECKING:
    from storage.database import Database

SAMPLE = 20
"""Artifacts that are read again."""
LOW_DISK_BYTES = 2 * 1024**3
JOB_TIMEOUT_S = 180
JOB_PROBE = (
    "import json, platform, torch, transformers, peft;"
    "print(json.dumps({'python': platform.python_version(), 'torch': torch.__version__,"
    " 'transformers': transformers.__version__, 'peft': peft.__version__, 'cuda': torch.cuda.is_available()}))"
)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found."""

    check: str
    ok: bool
    message: str


class Ill(Exception):  # noqa: N818 - what a check says, not an error of the program
    """A check failed; the message says what to do."""


def examine(home: Home, names: Sequence[str] = ()) -> list[Finding]:
    """Run the checks with these names, or all; one that fails does not stop the others.

    Raises:
        BadInput: there is no such check.
    """
    checks: dict[str, Callable[[Home], str]] = {
        "home": _home,
        "database": _database,
        "records": _records,
        "artifacts": _artifacts,
        "daemon": _daemon,
        "disk": _disk,
        "jobs": _jobs,
    }
    for name in names:
        if name not in checks:
            raise BadInput(f"there is no check {name!r}; there are {', '.join(checks)}")
    return [_finding(name, check, home) for name, check in checks.items() if name in (names or checks)]


def _finding(name: str, check: Callable[[Home], str], home: Home) -> Finding:
    try:
        return Finding(check=name, ok=True, message=check(home))
    except (Ill, RekindleError) as error:
        return Finding(check=name, ok=False, message=str(error))
    except Exception as error:
        return Finding(check=name, ok=False, message=f"{type(error).__name__}: {error}")


def _home(home: Home) -> str:
    if not home.root.is_dir():
        raise Ill(f"there is no home at {home.root}; `rekindle serve` makes one, --home names another")
    for path in (home.root, home.token_file):
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise Ill(f"{path} can be reached by other users; chmod go-rwx {path}")
    if not os.access(home.root, os.W_OK):
        raise Ill(f"{home.root} cannot be written; see to its owner")
    return f"{home.root} belongs to its owner alone"


def _database(home: Home) -> str:
    with _Opened(home) as database:
        database.check_schema()
        return f"{database.dialect}, schema as this Rekindle wants it"


def _records(home: Home) -> str:
    from storage import chain

    with _Opened(home) as database, database.read() as session:
        problems = chain.verify(session)
    if problems:
        raise Ill(f"{len(problems)} rows are not as they were written: {problems[0]}; restore a backup")
    return "versions, evaluations, promotions and events are as they were written"


def _artifacts(home: Home) -> str:
    from sqlalchemy import func, select

    from storage.artifacts import ArtifactStore
    from storage.errors import StorageError
    from storage.tables import StoredObject

    with _Opened(home) as database, database.read() as session:
        query = select(StoredObject.hash).where(StoredObject.marked_at.is_(None)).order_by(func.random()).limit(SAMPLE)
        sample = session.scalars(query).all()
    store = ArtifactStore(home.artifacts)
    for name in sample:
        try:
            store.verify(name)
        except StorageError as error:
            raise Ill(f"{error}; restore it from a backup") from error
    return f"{len(sample)} read again, all whole"


def _daemon(home: Home) -> str:
    url = client.url()
    base = urlsplit(url)
    connection = http.client.HTTPConnection(base.hostname or "", base.port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        answer.read(100)
    except OSError as error:
        raise Ill(f"none answers at {url}; start one with `rekindle serve --home {home.root}`") from error
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise Ill(f"{url} answers {answer.status}; see {home.logs}/daemon.log")
    found = client.get("/daemon")
    if found["faults"]:
        failing = "; ".join(
            f"its step {step} keeps failing ({why.splitlines()[0]})" for step, why in found["faults"].items()
        )
        raise Ill(f"the daemon at {url} goes on, but {failing}; see {home.logs}/daemon.log")
    return f"version {found['version']}, pid {found['pid']}, at {url}"


def _disk(home: Home) -> str:
    at = next(path for path in (home.root, *home.root.parents) if path.exists())
    usage = shutil.disk_usage(at)
    free = f"{usage.free / 1e9:.1f} GB free"
    if usage.free < LOW_DISK_BYTES:
        raise Ill(f"only {free} at {at}; make room, `rekindle gc` helps")
    return f"{free} at {at}"


def _jobs(home: Home) -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", JOB_PROBE], capture_output=True, text=True, timeout=JOB_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Ill(f"importing torch took longer than {JOB_TIMEOUT_S} s; see to the machine's disk and load") from error
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no word"])[-1]
        raise Ill(f"the job process cannot start ({said}); install it with: pip install 'rekindle[train]'")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return ", ".join(f"{name} {value}" for name, value in found.items())


class _Opened:
    """The home's database, closed at the end; without one there is nothing to check."""

    def __init__(self, home: Home) -> None:
        from orchestrator import daemon_settings
        from storage.database import Database

        chosen = daemon_settings.load().database.url
        if chosen is None and not home.database_path.is_file():
            raise Ill(f"there is no database at {home.database_path}; `rekindle serve` makes one")
        self._database = Database.open(chosen or f"sqlite:///{home.database_path}")

    def __enter__(self) -> Database:
        return self._database

    def __exit__(self, *_: object) -> None:
        self._database.close()
