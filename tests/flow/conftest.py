from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from storage.database import Database
from tests.flow.harness import Daemon

ON_BOTH = (
    "test_a_retrain_with_replay_learns_and_goes_live",
    "test_a_candidate_that_forgot_is_refused_and_its_batch_stays_pending",
    "test_the_same_decision_is_not_made_twice",
    "test_rollback_returns_to_the_earlier_version_and_holds_what_only_the_later_saw",
    "test_a_dry_run_shows_the_decision_and_leaves_no_trace",
)
"""Tests that run on either database at every change; of the others those on PostgreSQL are slow ones."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.parent == here and "[postgresql" in item.name and not item.name.startswith(ON_BOTH):
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def daemon(tmp_path: Path, database: Database) -> Iterator[Daemon]:
    made = Daemon(tmp_path, database)
    yield made
    made.app.background.close()
    made.engine.close()
