from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from storage.database import Database
from tests.flow.harness import Daemon

ON_BOTH = {"test_main_job.py"}
"""Modules whose tests run on either database at every change; of the others those on PostgreSQL are slow ones."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and item.path.name not in ON_BOTH and "[postgresql" in item.name:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def daemon(tmp_path: Path, database: Database) -> Iterator[Daemon]:
    made = Daemon(tmp_path, database)
    yield made
    made.app.background.close()
    made.engine.close()
