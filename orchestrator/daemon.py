"""The daemon: one process a home, one leader a database; the loop in a thread, REST in the main one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import logging.handlers
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

import structlog
import uvicorn

from orchestrator import auth
from orchestrator.app import App, Resources
from orchestrator.background import Background
from orchestrator.engine import Engine
from orchestrator.errors import Conflict, Unavailable
from orchestrator.flow import publication
from orchestrator.home import Home
from orchestrator.jobs.supervisor import Supervisor
from orchestrator.rest import create_app
from storage import leases
from storage.artifacts import ArtifactStore
from storage.database import Database
from storage.errors import DatabaseUnavailable, LeaseHeld, LeaseLost

log = structlog.get_logger()

LEASE_S = 30.0
RENEW_S = 5.0


def run(
    *,
    home: Path,
    host: str = "127.0.0.1",
    port: int = 7433,
    database_url: str | None = None,
    allowed_hosts: Sequence[str] = (),
    cpus: int | None = None,
    gpus: Sequence[int] = (),
    log_level: str = "INFO",
) -> int:
    """Serve until SIGTERM or SIGINT; jobs go on and are adopted by the next daemon.

    Raises:
        Unavailable: the home cannot be written, the port is in use, or the database cannot be reached.
        Conflict: another daemon serves this home or leads this database.
        StorageError: the schema is newer than this program.
    """
    place = Home(root=home.expanduser().resolve())
    try:
        place.create()
    except OSError as error:
        raise Unavailable(
            f"the home {place.root} cannot be written ({error.strerror}); choose another with --home"
        ) from error
    with _lock(place) as lock, _bound(host, port) as listening:
        url = f"http://{host}:{listening.getsockname()[1]}"
        database = _open_database(database_url or f"sqlite:///{place.database_path}")
        _log_to(place, log_level)
        with contextlib.closing(database), _leading(database, place) as (epoch, lost):
            app = _join(place, database, epoch, cpus, tuple(gpus))
            auth.ensure_token_file(app)
            _say_who(lock, url)
            return _serve(app, listening, lost, url=url, allowed_hosts=[host, *allowed_hosts])


def _serve(app: App, listening: socket.socket, lost: threading.Event, *, url: str, allowed_hosts: Sequence[str]) -> int:
    publication.repair(app)
    stop = threading.Event()
    config = uvicorn.Config(
        create_app(app, allowed_hosts=tuple(allowed_hosts)),
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
        lifespan="off",
    )
    server = uvicorn.Server(config)

    def end(_signal: int | None = None, _frame: FrameType | None = None) -> None:
        server.should_exit = True
        stop.set()
        app.wake.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)  # uvicorn raises the signal again once it has shut down; here it ends in `end`
    supervisor = Supervisor(app)
    engine = Engine(app, supervisor, on_lost=end)
    threads = [
        threading.Thread(target=engine.run, args=(stop,), name="engine", daemon=True),
        threading.Thread(target=_end_when, args=(lost, stop, end), name="lease-watch", daemon=True),
    ]
    for thread in threads:
        thread.start()
    log.info("serving", action="serving", home=str(app.home.root), epoch=app.epoch)
    print(f"rekindle serves {app.home.root} at {url}", flush=True)
    server.run(sockets=[listening])
    end()
    threads[0].join(timeout=30)
    supervisor.close()
    app.background.close()
    log.info("stopped", action="stopped")
    return 1 if lost.is_set() else 0


def _end_when(lost: threading.Event, stop: threading.Event, end: Any) -> None:
    while not stop.is_set():
        if lost.wait(1.0):
            end()


def _join(home: Home, database: Database, epoch: int, cpus: int | None, gpus: tuple[int, ...]) -> App:
    """The one place that knows the concrete things and joins them."""
    wake = threading.Event()
    return App(
        home=home,
        database=database,
        store=ArtifactStore(home.artifacts),
        resources=Resources(cpus=cpus or os.cpu_count() or 1, gpus=gpus),
        epoch=epoch,
        wake=wake,
        background=Background(on_done=wake.set),
    )


def _open_database(url: str) -> Database:
    database = Database.open(url)
    database.upgrade()
    return database


@contextlib.contextmanager
def _lock(home: Home) -> Iterator[IO[str]]:
    """One daemon a home, held by the kernel for as long as the process lives."""
    with home.lock_file.open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Conflict(
                f"{_who(home)} serves {home.root} already; stop it first or choose another --home"
            ) from error
        yield lock
        lock.truncate(0)


def _who(home: Home) -> str:
    try:
        other = json.loads(home.lock_file.read_text(encoding="utf-8"))
        return f"a daemon (pid {other['pid']}, {other['url']})"
    except (OSError, ValueError, KeyError):
        return "another daemon"


def _say_who(lock: IO[str], url: str) -> None:
    lock.seek(0)
    lock.truncate(0)
    lock.write(json.dumps({"format": 1, "pid": os.getpid(), "url": url}))
    lock.flush()


@contextlib.contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(128)
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be bound ({error.strerror})"
            raise Unavailable(f"port {port} on {host} {reason}; choose another with --port") from error
        yield listening


@contextlib.contextmanager
def _leading(database: Database, home: Home) -> Iterator[tuple[int, threading.Event]]:
    """Hold the leader's lease; the second value is set when it is lost."""
    holder = f"{socket.gethostname()}:{home.root}"
    try:
        epoch = leases.acquire(database, holder, LEASE_S)
    except LeaseHeld as error:
        raise Conflict(f"another daemon leads this database: {error}") from error
    lost, stop = threading.Event(), threading.Event()
    renewer = threading.Thread(target=_renew, args=(database, holder, epoch, lost, stop), name="lease", daemon=True)
    renewer.start()
    try:
        yield epoch, lost
    finally:
        stop.set()
        renewer.join(timeout=RENEW_S * 2)
        with contextlib.suppress(LeaseLost, DatabaseUnavailable):
            leases.release(database, holder, epoch)


def _renew(database: Database, holder: str, epoch: int, lost: threading.Event, stop: threading.Event) -> None:
    while not stop.wait(RENEW_S):
        try:
            leases.renew(database, holder, epoch, LEASE_S)
        except LeaseLost:
            lost.set()
            return
        except DatabaseUnavailable as error:
            log.warning("the lease could not be renewed; trying again", action="lease_unrenewed", error=str(error))


def _log_to(home: Home, level: str) -> None:
    """JSON lines in the home, at most 60 MB; warnings and worse on stderr as well."""
    rotating = logging.handlers.RotatingFileHandler(home.logs / "daemon.log", maxBytes=10_000_000, backupCount=5)
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setLevel(logging.ERROR)
    logging.basicConfig(level=level, handlers=[rotating, stderr], format="%(message)s", force=True)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        cache_logger_on_first_use=True,
    )
