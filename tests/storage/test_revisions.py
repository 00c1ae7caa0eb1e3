"""What each revision makes of the rows of an older home, on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Connection, MetaData, insert, select

from storage import schema
from storage.database import Database, now
from storage.tables import Decision

STREAM = {"id": "s", "name": "inconclusive", "task": "causal-lm", "state": "active", "split_key": "k"}
REVISION = {"id": 1, "stream_id": "s", "number": 1, "settings": {}, "origins": {}, "settings_hash": "h", "actor": "me"}
VERSION = {
    **{"stream_id": "s", "state": "live", "strategy": "naive", "model_hash": "m", "facts": {}, "pinned": False},
    **{"previous_hash": "p", "row_hash": "r"},
}
DECISION = {
    **{"stream_id": "s", "revision_id": 1, "parent_version_id": 1, "state": "closed", "requested": "auto"},
    **{"batches": [], "signals": {}, "settings": {}, "reason": "r", "alternatives": [], "actor": "me"},
}
ENDS = (
    # The plan's state, the sentence, and what both come to; the stream's name opens the sentence of what went live.
    ("succeeded", "refused by the gate: anchor: the loss rises", "refused"),
    ("succeeded", "inconclusive: too few documents", "inconclusive"),
    ("succeeded", "inconclusive/2 is live (promotion): better", "promoted"),
    ("failed", "job 3 failed: no memory", "failed"),
    ("cancelled", "job 3 cancelled: asked for", "cancelled"),
    ("stale", "stale: the parent version is no longer live", "stale"),
    (None, "stale: batch 3 is held; the others are tried again", "stale"),
    (None, "the stream was removed", "cancelled"),
    (None, "measuring failed: no memory", "failed"),
)


class Old:
    """A database at an earlier revision, and a way to put rows into its tables as they were."""

    def __init__(self, database: Database, revision: str) -> None:
        self.database = database
        with database.writing_connection() as connection:
            command.upgrade(schema.config(connection), revision)

    def add(self, **rows: list[dict[str, Any]]) -> None:
        """Rows by table, in the order of their references."""
        with self.database.writing_connection() as connection:
            for table, given in rows.items():
                self._insert(connection, table, given)

    @staticmethod
    def _insert(connection: Connection, name: str, rows: list[dict[str, Any]]) -> None:
        metadata = MetaData()
        metadata.reflect(connection, only=[name], resolve_fks=False)
        table = metadata.tables[name]
        stamps = {one: now() for one in ("created_at", "started_at") if one in table.columns}
        for row in rows:
            connection.execute(insert(table).values({**stamps, **row}))


@pytest.fixture
def old(empty_url: str) -> Iterator[Old]:
    """A stream with a live version and an open decision, before decisions said how they ended."""
    database = Database.open(empty_url)
    home = Old(database, "0002")
    decision = {**DECISION, "id": 1, "key": "open", "state": "decided"}
    home.add(
        streams=[STREAM],
        stream_revisions=[REVISION],
        versions=[{**VERSION, "id": 1, "number": 1}],
        decisions=[decision],
    )
    yield home
    database.close()


def test_how_a_decision_ended_is_read_from_its_plan_and_its_sentence(old: Old) -> None:
    closed = [
        {**DECISION, "id": at, "key": f"k{at}", "outcome": sentence, "closed_at": now()}
        for at, (_, sentence, _) in enumerate(ENDS, start=2)
    ]
    plans = [
        {"id": at, "stream_id": "s", "decision_id": at, "state": state, "spec": {}}
        for at, (state, _, _) in enumerate(ENDS, start=2)
        if state is not None
    ]
    old.add(decisions=closed, plans=plans)
    old.database.upgrade()
    with old.database.read() as session:
        found = session.scalars(select(Decision).order_by(Decision.id)).all()
        assert [one.result for one in found] == [None, *(result for _, _, result in ENDS)]
        assert [one.outcome for one in found[1:]] == [sentence for _, sentence, _ in ENDS]
