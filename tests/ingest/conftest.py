"""A stream to ingest into, on either database or on SQLite alone, and ways to write files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.home import Home
from orchestrator.ingest.arrival import ingest
from orchestrator.ingest.records import IngestReport
from orchestrator.settings import StreamSettings
from storage.artifacts import ArtifactStore
from storage.database import Database, now
from storage.tables import Stream, StreamRevision

STREAM = "s" * 32


@dataclass(frozen=True, kw_only=True)
class World:
    """One stream in a fresh home."""

    home: Home
    database: Database
    store: ArtifactStore
    stream_id: str = STREAM

    def ingest(self, path: Any, *, name: str | None = None, **more: Any) -> IngestReport:
        return ingest(self, self.stream_id, path=path, name=name or Path(str(path)).name, actor="test", **more)


MakeWorld = Callable[..., World]


def make_world(root: Path, database: Database, **settings: Any) -> World:
    home = Home(root=root)
    home.create()
    world = World(home=home, database=database, store=ArtifactStore(home.artifacts))
    chosen = StreamSettings(name="news", model="base", **settings)
    with database.write() as session:
        session.add(
            Stream(id=STREAM, name="news", task=chosen.task, state="active", split_key="k" * 64, created_at=now())
        )
        session.flush()
        session.add(
            StreamRevision(
                stream_id=STREAM,
                number=1,
                settings=chosen.model_dump(mode="json"),
                origins={},
                settings_hash="0" * 64,
                actor="test",
                created_at=now(),
            )
        )
    return world


@pytest.fixture
def make_local(sqlite_template: Path, tmp_path: Path) -> Iterator[MakeWorld]:
    """Worlds on SQLite, each in a folder of its own."""
    opened: list[Database] = []

    def make(**settings: Any) -> World:
        root = tmp_path / f"home-{len(opened)}"
        root.mkdir()
        shutil.copy(sqlite_template, root / "rekindle.db")
        opened.append(Database.open(f"sqlite:///{root / 'rekindle.db'}"))
        return make_world(root, opened[-1], **settings)

    yield make
    for database in opened:
        database.close()


@pytest.fixture
def local(make_local: MakeWorld) -> World:
    """A causal-lm stream on SQLite."""
    return make_local()


@pytest.fixture
def make_either(database: Database, tmp_path: Path) -> MakeWorld:
    """A world on SQLite and, in a second run, on PostgreSQL."""
    return lambda **settings: make_world(tmp_path / "home", database, **settings)
