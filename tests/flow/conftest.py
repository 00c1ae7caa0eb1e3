from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.database import Database
from tests.flow.harness import Daemon


@pytest.fixture
def daemon(tmp_path: Path, database: Database) -> Iterator[Daemon]:
    made = Daemon(tmp_path, database)
    yield made
    made.app.background.close()
    made.engine.close()
