"""Migrations: the way up, and no way down."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, select, text
from sqlalchemy.engine import Inspector

from storage import schema
from storage.database import Database
from storage.errors import SchemaTooNew, SchemaTooOld
from storage.tables import Base, Stream
from tests.storage.rows import add_stream


@pytest.fixture
def empty(empty_url: str) -> Iterator[Database]:
    opened = Database.open(empty_url)
    yield opened
    opened.close()


def test_migrations_lead_to_the_schema_of_the_models(database: Database) -> None:
    with database.writing_connection() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_checks_references_and_partial_indexes_are_those_of_the_models(empty: Database) -> None:
    with empty.writing_connection() as connection:
        Base.metadata.create_all(connection)
        from_models = _constraints(inspect(connection))
        Base.metadata.drop_all(connection)
    empty.upgrade()
    with empty.read() as session:
        assert _constraints(inspect(session.connection())) == from_models


def _constraints(inspector: Inspector) -> dict[str, object]:
    tables = sorted(set(inspector.get_table_names()) - {"alembic_version"})
    return {
        table: [
            sorted((str(one["name"]), str(one["sqltext"])) for one in inspector.get_check_constraints(table)),
            sorted(_plain(one) for one in inspector.get_foreign_keys(table)),
            sorted(_plain(one) for one in inspector.get_indexes(table)),
        ]
        for table in tables
    }


def _plain(found: object) -> str:
    """Text that is equal for equal constraints; conditions of partial indexes are objects without equality."""
    if isinstance(found, dict):
        return str(sorted((key, _plain(value)) for key, value in found.items()))
    return str(found)


def test_an_empty_database_must_be_upgraded_first(empty: Database) -> None:
    with pytest.raises(SchemaTooOld, match="rekindle db upgrade"):
        empty.check_schema()
    empty.upgrade()
    empty.check_schema()


def test_upgrading_again_changes_nothing_and_keeps_the_rows(database: Database) -> None:
    with database.write() as session:
        add_stream(session)
    database.upgrade()
    with database.read() as session:
        assert session.scalars(select(Stream.name)).one() == "news"


@pytest.mark.parametrize("ask", [Database.check_schema, Database.upgrade])
def test_a_schema_newer_than_the_code_is_refused_by_name(database: Database, ask: object) -> None:
    assert callable(ask)
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaTooNew, match="9999"):
        ask(database)


def test_there_is_no_way_down(database: Database) -> None:
    with pytest.raises(RuntimeError, match="never taken back"), database.writing_connection() as connection:
        command.downgrade(schema.config(connection), "base")
    database.check_schema()


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(empty: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("alembic.op.bulk_insert", fail)
    with pytest.raises(RuntimeError):
        empty.upgrade()
    with empty.read() as session:
        assert inspect(session.connection()).get_table_names() == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_sqlite_is_copied_before_it_is_upgraded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert database.path is not None
    with database.write() as session:
        add_stream(session)
    monkeypatch.setattr(schema, "head", lambda: "9999")
    database.upgrade()
    (copy,) = (database.path.parent / "backups").iterdir()
    opened = Database.open(f"sqlite:///{copy}")
    with opened.read() as session:
        assert session.scalars(select(Stream.name)).one() == "news"
    opened.close()


def test_two_daemons_that_upgrade_at_once_end_with_one_schema(empty_url: str) -> None:
    code = "import sys; from storage.database import Database; Database.open(sys.argv[1]).upgrade()"
    racers = [subprocess.Popen([sys.executable, "-c", code, empty_url]) for _ in range(3)]
    assert [racer.wait(60) for racer in racers] == [0, 0, 0]


def test_the_migrations_need_no_ini_file_and_no_working_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from storage.database import Database as D; d = D.open(sys.argv[1]); d.upgrade(); d.check_schema()"
    )
    command_line = [sys.executable, "-c", code, f"sqlite:///{tmp_path / 'a.db'}"]
    root = str(Path(schema.__file__).parents[1])
    subprocess.run(command_line, cwd="/", env={**os.environ, "PYTHONPATH": root}, check=True)
