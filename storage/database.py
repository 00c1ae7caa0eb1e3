"""The database: SQLite embedded, PostgreSQL for more, one way to read and one way to write.

Writers take turns on both: BEGIN IMMEDIATE on SQLite, one advisory lock on PostgreSQL. So a transaction that
read a row may trust it until it commits, two writers cannot deadlock, and both databases behave alike.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.orm import Session

from storage.errors import DatabaseUnavailable, StorageError

BUSY_TIMEOUT_S = 30
WAL_SOUND_FROM = (3, 51, 3)
WRITER_LOCK = 0x52454B494E444C45
"""Key of PostgreSQL's advisory lock; any fixed number that no other program uses in this database."""

MODE = "rekindle_mode"


def now() -> datetime:
    """Aware UTC."""
    return datetime.now(UTC)


class Database:
    """One open database. Threads share it; each ``read`` or ``write`` has a session of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Lock()
        self._writer_thread: int | None = None

    @classmethod
    def open(cls, url: str) -> Database:
        """Open ``sqlite:///PATH`` or ``postgresql://…``; nothing is connected until it is used.

        Raises:
            StorageError: neither of the two, or the driver is not installed.
        """
        parsed = _with_driver(url)
        options: dict[str, Any] = {"pool_size": 8, "max_overflow": 56, "pool_timeout": BUSY_TIMEOUT_S}
        if parsed.get_backend_name() == "postgresql":
            options["pool_pre_ping"] = True
        try:
            engine = create_engine(parsed, **options)
        except ImportError as error:
            raise StorageError(
                "PostgreSQL needs its driver; install it with: pip install 'rekindle[postgres]'"
            ) from error
        _prepare(engine)
        return cls(engine)

    @property
    def url(self) -> str:
        """The whole URL, password included; not for logs."""
        return self._engine.url.render_as_string(hide_password=False)

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    @property
    def path(self) -> Path | None:
        """The file of an embedded database."""
        return Path(self._engine.url.database or "") if self.dialect == "sqlite" else None

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one unchanging state and cannot write.

        Raises:
            DatabaseUnavailable: it cannot be reached or is locked.
        """
        options: dict[str, Any] = {MODE: "read"}
        if self.dialect == "postgresql":
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        with translated(), Session(self._engine.execution_options(**options), expire_on_commit=False) as session:
            yield session

    @contextlib.contextmanager
    def write(self) -> Iterator[Session]:
        """A session that holds the one writer's turn; it commits at the end, or rolls back on an error.

        Raises:
            DatabaseUnavailable: it cannot be reached, stayed locked for 30 s, or its disk is full.
        """
        engine = self._engine.execution_options(**{MODE: "write"})
        with translated(), self._own_turn(), Session(engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextlib.contextmanager
    def writing_connection(self) -> Iterator[Connection]:
        """Like :meth:`write`, for statements below the session, such as migrations."""
        engine = self._engine.execution_options(**{MODE: "write"})
        with translated(), self._own_turn(), engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _own_turn(self) -> Iterator[None]:
        """Queue this process's writers here: SQLite's own waiting is by polling and unfair."""
        if self._writer_thread == threading.get_ident():
            raise StorageError("a write transaction was opened inside another one; pass the session on instead")
        if not self._turn.acquire(timeout=BUSY_TIMEOUT_S):
            raise DatabaseUnavailable(f"another thread has been writing for {BUSY_TIMEOUT_S} s; try again")
        self._writer_thread = threading.get_ident()
        try:
            yield
        finally:
            self._writer_thread = None
            self._turn.release()

    def upgrade(self) -> None:
        """Bring the schema to this Rekindle's; an embedded database is copied to ``backups/`` beside it first.

        Raises:
            SchemaTooNew: a newer Rekindle wrote it; there is no way down.
        """
        from storage import schema

        schema.upgrade(self)

    def check_schema(self) -> None:
        """Refuse a database whose schema is not this Rekindle's.

        Raises:
            SchemaTooNew: a newer Rekindle wrote it.
            SchemaTooOld: it needs ``rekindle db upgrade``.
        """
        from storage import schema

        schema.check(self)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _with_driver(url: str) -> Any:
    try:
        parsed = make_url(url)
    except exc.ArgumentError as error:
        raise StorageError("the database URL cannot be parsed; write sqlite:///PATH or postgresql://…") from error
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return parsed
    raise StorageError(f"cannot use a database of kind {parsed.drivername}; write sqlite:///PATH or postgresql://…")


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors of place and time into ours; constraint errors pass as they are."""
    try:
        yield
    except (exc.OperationalError, exc.InterfaceError) as error:
        cause = str(error.orig).strip().splitlines()[0] if error.orig else str(error)
        raise DatabaseUnavailable(
            f"the database cannot be used ({cause}); see to its disk or server, try again"
        ) from error
    except exc.TimeoutError as error:
        raise DatabaseUnavailable("all connections to the database are in use; try again") from error


def _prepare(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "begin", _begin_postgresql)


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Take transactions into our own hands and make commits durable.

    TRUNCATE is the rollback journal whose end is itself synced; with DELETE an acknowledged commit can be lost.
    """
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    mode = "WAL" if sqlite3.sqlite_version_info >= WAL_SOUND_FROM else "TRUNCATE"
    connection.execute(f"PRAGMA journal_mode = {mode}").close()
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    writing = connection.get_execution_options().get(MODE) == "write"
    connection.exec_driver_sql(f"PRAGMA query_only = {0 if writing else 1}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _begin_postgresql(connection: Connection) -> None:
    if connection.get_execution_options().get(MODE) == "write":
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{BUSY_TIMEOUT_S}s'")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})")
