"""Which schema a database has, and the only way to change it: up."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection

from storage.database import Database, now
from storage.errors import DatabaseUnavailable, SchemaTooNew, SchemaTooOld
from storage.files import fsync_dir

MIGRATIONS = Path(__file__).parent / "migrations"


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration; it needs no file and no working folder."""
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    made.attributes["connection"] = connection
    return made


def head() -> str:
    """The revision this Rekindle needs."""
    revision = ScriptDirectory.from_config(config()).get_current_head()
    assert revision is not None
    return revision


def check(database: Database) -> None:
    """See :meth:`storage.database.Database.check_schema`."""
    with database.read() as session:
        found = _revision(session.connection())
    if found is None or found != head():
        raise SchemaTooOld(f"the database has schema {found or 'none'}, not {head()}; run: rekindle db upgrade")


def upgrade(database: Database) -> None:
    """See :meth:`storage.database.Database.upgrade`."""
    with database.read() as session:
        found = _revision(session.connection())
    if found == head():
        return
    if found is not None and database.path is not None:
        copy_sqlite(database.path, _free_name(database.path, found))
    with database.writing_connection() as connection:
        command.upgrade(config(connection), "head")


def copy_sqlite(source: Path, target: Path) -> None:
    """Copy an embedded database while it is used, check the copy, and make it durable.

    Raises:
        DatabaseUnavailable: the copy is not sound.
    """
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(target)) as copy:
        original.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")
        problems = copy.execute("PRAGMA integrity_check").fetchone()[0]
    if problems != "ok":
        raise DatabaseUnavailable(f"the copy {target} is not sound ({problems}); check the disk of {source}")
    fsync_dir(target.parent)


def _revision(connection: Connection) -> str | None:
    """The database's revision.

    Raises:
        SchemaTooNew: this Rekindle does not know it.
    """
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None:
        return None
    try:
        ScriptDirectory.from_config(config()).get_revision(found)
    except CommandError as error:
        raise SchemaTooNew(f"the database has schema {found}, newer than {head()}; use a newer Rekindle") from error
    return found


def _free_name(path: Path, revision: str) -> Path:
    stamp = now().strftime("%Y%m%dT%H%M%S%fZ")
    return path.parent / "backups" / f"{path.stem}-schema-{revision}-{stamp}{path.suffix}"
