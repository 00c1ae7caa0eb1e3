from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.database import Database
from tests.faces.face import Face
from tests.flow.harness import NEW, write_documents


def _opened(template: Path, root: Path) -> Database:
    shutil.copy(template, root / "rekindle.db")
    return Database.open(f"sqlite:///{root / 'rekindle.db'}")


@pytest.fixture
def face(sqlite_template: Path, tmp_path: Path) -> Iterator[Face]:
    """A served daemon whose loop stands still."""
    database = _opened(sqlite_template, tmp_path)
    made = Face(tmp_path, database)
    yield made
    made.close()
    database.close()


@pytest.fixture
def working(sqlite_template: Path, tmp_path: Path) -> Iterator[Face]:
    """A served daemon at work."""
    database = _opened(sqlite_template, tmp_path)
    made = Face(tmp_path, database, working=True)
    yield made
    made.close()
    database.close()


@pytest.fixture(scope="module")
def story(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Face]:
    """A stream that was registered, fed and retrained once through the command line; tests only look at it."""
    root = tmp_path_factory.mktemp("story")
    database = _opened(sqlite_template, root)
    made = Face(root, database, working=True)
    assert made.add_stream("news", "--every", "6h").code == 0
    batch = write_documents(root / "monday.jsonl", NEW, 40)
    lines = batch.read_text().splitlines()
    batch.write_text("\n".join([*lines, lines[0], "{broken"]) + "\n")
    pushed = made.rekindle("ingest", "news", str(batch))
    assert pushed.code == 0, pushed.err
    trained = made.rekindle("retrain", "news", "--wait")
    assert trained.code == 0, trained.err
    yield made
    made.close()
    database.close()
