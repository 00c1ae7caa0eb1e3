"""Row-hash chains find whatever is done to the lineage behind our back."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from storage import chain, events
from storage.database import Database
from storage.tables import Event
from tests.storage import rows

TAMPERING = {
    "an edited value": ("UPDATE events SET reason = 'nothing' WHERE id = 3", "row 3: its contents"),
    "an edited actor": ("UPDATE events SET actor = 'you' WHERE id = 5", "row 5: its contents"),
    "a deleted row": ("DELETE FROM events WHERE id = 3", "row 4: a row before it"),
    "the first row deleted": ("DELETE FROM events WHERE id = 1", "row 2: a row before it"),
    "the last row deleted": ("DELETE FROM events WHERE id = 5", "newest rows"),
    "all rows deleted": ("DELETE FROM events", "newest rows"),
    "another number": ("UPDATE events SET id = 9 WHERE id = 5", "row 9: its contents"),
    "an edited score": ("UPDATE evaluations SET value = 0.5", "evaluations row 1: its contents"),
    "an edited origin": ("UPDATE versions SET model_hash = 'x' WHERE number = 2", "versions row 2: its contents"),
    "an edited promotion": ("UPDATE promotions SET reason = 'x'", "promotions row 1: its contents"),
}


def _fill(database: Database) -> None:
    with database.write() as session:
        rows.add_stream(session)
        first = rows.add_version(session, 1, facts={"2": [1, 2.5], "10": None, "ä": True})
        rows.add_version(session, 2, (first,))
        rows.add_evaluation(session, first, value_judge=0.1 + 0.2, details={"rate": 1e22, "tiny": 5e-324})
        rows.add_promotion(session, first, None, "initial")
        for number in range(5):
            events.record(
                session, stream_id=None, subject="test", subject_id=number, action="count", actor="me", reason="why not"
            )


def test_untouched_rows_verify(database: Database) -> None:
    _fill(database)
    with database.read() as session:
        assert chain.verify(session) == []


@pytest.mark.parametrize("kind", TAMPERING)
def test_tampering_is_found(database: Database, kind: str) -> None:
    _fill(database)
    statement, expected = TAMPERING[kind]
    with database.write() as session:
        session.execute(text(statement))
    with database.read() as session:
        problems = chain.verify(session)
    assert any(expected in problem for problem in problems), problems


def test_two_rows_that_changed_places_are_found(database: Database) -> None:
    _fill(database)
    with database.write() as session:
        for start, finish in ((2, 99), (4, 2), (99, 4)):
            session.execute(text(f"UPDATE events SET id = {finish} WHERE id = {start}"))
    with database.read() as session:
        assert chain.verify(session)


def test_a_row_slipped_in_with_a_right_looking_hash_is_found(database: Database) -> None:
    _fill(database)
    with database.write() as session:
        last = session.get_one(Event, 5)
        copy = {column.name: getattr(last, column.name) for column in Event.__table__.columns}
        session.add(Event(**{**copy, "id": 6, "previous_hash": last.row_hash}))
    with database.read() as session:
        assert chain.verify(session)


def test_states_and_pins_move_without_breaking_the_chain(database: Database) -> None:
    _fill(database)
    with database.write() as session:
        session.execute(text("UPDATE versions SET state = 'evaluated', pinned = NOT pinned"))
    with database.read() as session:
        assert chain.verify(session) == []


def test_a_transaction_that_fails_leaves_no_gap(database: Database) -> None:
    _fill(database)

    def fail() -> None:
        with database.write() as session:
            rows.add_version(session, 3)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with database.write() as session:
        assert rows.add_version(session, 3).id == 3
        assert chain.verify(session) == []
