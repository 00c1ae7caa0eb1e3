"""Reading, writing, waiting."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, StatementError

from storage import events
from storage.database import Database, now
from storage.errors import DatabaseUnavailable, StorageError
from storage.tables import Event, StoredObject, Stream
from tests.storage.rows import add_stream


def test_what_a_write_session_wrote_is_there_afterwards(database: Database) -> None:
    with database.write() as session:
        add_stream(session)
    with database.read() as session:
        assert session.scalars(select(Stream.name)).one() == "news"


def test_an_error_undoes_the_whole_transaction(database: Database) -> None:
    def write_and_fail() -> None:
        with database.write() as session:
            add_stream(session)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_and_fail()
    with database.read() as session:
        assert session.scalar(select(func.count(Stream.id))) == 0


def test_a_read_session_cannot_write(database: Database) -> None:
    with pytest.raises((DBAPIError, DatabaseUnavailable)), database.read() as session:
        add_stream(session)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_read_session_sees_one_unchanging_state_while_others_write(database: Database) -> None:
    with database.read() as reading:
        before = reading.scalar(select(func.count(Stream.id)))
        with database.write() as writing:
            add_stream(writing)
        assert reading.scalar(select(func.count(Stream.id))) == before


def test_eight_threads_write_at_once_and_none_is_told_that_the_database_is_locked(database: Database) -> None:
    errors: list[BaseException] = []

    def write_some(worker: int) -> None:
        try:
            for turn in range(10):
                with database.write() as session:
                    events.record(
                        session,
                        stream_id=None,
                        subject="test",
                        subject_id=worker,
                        action=f"{turn}",
                        actor="me",
                        reason="",
                    )
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write_some, args=(worker,)) for worker in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read() as session:
        assert (errors, session.scalar(select(func.count(Event.id)))) == ([], 80)


def test_two_openings_of_one_database_take_turns(database: Database) -> None:
    other = Database.open(database.url)
    order: list[str] = []

    def second() -> None:
        with other.write() as session:
            session.execute(select(Stream))
            order.append("second")

    thread = threading.Thread(target=second)
    with database.write() as session:
        session.execute(select(Stream))
        thread.start()
        thread.join(0.3)
        order.append("first")
    thread.join()
    other.close()
    assert order == ["first", "second"]


def test_a_write_inside_a_write_is_refused_instead_of_waiting_for_itself(database: Database) -> None:
    with pytest.raises(StorageError, match="inside another"), database.write(), database.write():
        pass


def test_times_come_back_aware_and_in_utc(database: Database) -> None:
    local = datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=5)))
    with database.write() as session:
        session.add(StoredObject(hash="a" * 64, bytes=1, created_at=local))
    with database.read() as session:
        found = session.scalars(select(StoredObject.created_at)).one()
    assert (found, found.utcoffset()) == (local, timedelta(0))


def test_a_naive_time_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="naive"), database.write() as session:
        session.add(StoredObject(hash="a" * 64, bytes=1, created_at=now().replace(tzinfo=None)))


def test_sqlite_commits_are_durable_and_foreign_keys_hold(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'a.db'}")
    with database.read() as session:
        found = [session.scalar(text(f"PRAGMA {name}")) for name in ("synchronous", "foreign_keys", "busy_timeout")]
        journal = session.scalar(text("PRAGMA journal_mode"))
    database.close()
    assert (found, journal in ("truncate", "wal")) == ([2, 1, 30_000], True)


@pytest.mark.parametrize("url", ["mysql://x/y", "sqlite://", "no url", "oracle://x"])
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(StorageError, match="sqlite:///PATH"):
        Database.open(url)


def test_a_database_that_cannot_be_reached_says_so_in_one_line(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path / 'missing' / 'a.db'}")
    with pytest.raises(DatabaseUnavailable) as caught, database.read() as session:
        session.execute(text("SELECT 1"))
    assert "\n" not in str(caught.value)
