"""Moves between states: every pair, and who comes too late."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from storage import leases
from storage.database import Database, now
from storage.errors import IllegalMove, LeaseLost, StaleRecord
from storage.moves import Movable, move
from storage.states import ATTEMPT_ENDED, JOB_ENDED, JOB_GAVE_UP, JOB_STATES, JOB_UNFINISHED, MOVES, is_legal
from storage.tables import Event, Job
from tests.storage import rows

PAIRS = [(subject, start, finish) for subject, table in MOVES.items() for start in table for finish in table]


def _decision(session: Session) -> Movable:
    return rows.add_decision(session, rows.add_version(session, 1))


def _plan(session: Session) -> Movable:
    return rows.add_plan(session, rows.add_decision(session, rows.add_version(session, 1)))


MAKERS: dict[str, Callable[[Session], Movable]] = {
    "batch": rows.add_batch,
    "trigger": rows.add_trigger,
    "decision": _decision,
    "plan": _plan,
    "job": rows.add_job,
    "version": lambda session: rows.add_version(session, 1),
}


def _make(session: Session, subject: str, state: str) -> Movable:
    stream = rows.add_stream(session)
    record: Movable = stream if subject == "stream" else MAKERS[subject](session)
    record.state = state
    session.flush()
    return record


def test_every_kind_of_record_has_every_pair_tried() -> None:
    assert {subject for subject, _, _ in PAIRS} == {"stream", *MAKERS}


def test_a_state_is_unfinished_or_an_end_and_only_attempts_end_as_lost() -> None:
    assert sorted((*JOB_UNFINISHED, *JOB_ENDED, "lost")) == sorted(JOB_STATES)
    assert set(ATTEMPT_ENDED) - set(JOB_ENDED) == {"lost"}
    again = {state for state in JOB_STATES if is_legal("job", state, "queued")}
    assert again == {*JOB_GAVE_UP, "lost"}


def test_every_pair_of_states_moves_if_the_table_says_so_and_else_not(database: Database) -> None:
    for subject, start, finish in PAIRS:
        with database.write() as session:
            record = _make(session, subject, start)
            if is_legal(subject, start, finish):
                move(session, record, finish, actor="me", reason="r")
            else:
                with pytest.raises(IllegalMove):
                    move(session, record, finish, actor="me", reason="r")
            session.expire(record)
            assert record.state == (finish if is_legal(subject, start, finish) else start), (subject, start, finish)
            session.rollback()


def test_a_move_leaves_an_event_with_the_actor_and_both_states(database: Database) -> None:
    with database.write() as session:
        job = _make(session, "job", "queued")
        move(session, job, "submitted", actor="daemon", reason="a slot is free", details={"slot": 1})
    with database.read() as session:
        event = session.scalars(select(Event)).one()
    told = (event.subject, event.subject_id, event.from_state, event.to_state, event.actor, event.reason, event.details)
    assert told == ("job", str(job.id), "queued", "submitted", "daemon", "a slot is free", {"slot": 1})


def test_a_move_sets_values_in_the_row_and_in_the_record_at_hand(database: Database) -> None:
    with database.write() as session:
        _make(session, "job", "queued")
    with database.read() as session:
        job = session.scalars(select(Job)).one()
    with database.write() as session:
        other = session.scalars(select(Job)).one()
        move(session, job, "submitted", actor="me", reason="r", attempt=1)
        assert (job.state, job.attempt, other.state, other.attempt) == ("submitted", 1, "submitted", 1)
    with database.read() as session:
        assert session.scalars(select(Job.attempt)).one() == 1


def test_who_saw_an_old_state_moves_nothing_and_leaves_no_event(database: Database) -> None:
    with database.write() as session:
        job = _make(session, "job", "queued")
    with database.write() as session:
        move(session, session.get_one(Job, job.id), "cancelled", actor="user", reason="r")
    with pytest.raises(StaleRecord, match="no longer queued"), database.write() as session:
        move(session, job, "submitted", actor="daemon", reason="r")
    with database.read() as session:
        assert [event.to_state for event in session.scalars(select(Event))] == ["cancelled"]


def test_an_epoch_that_no_longer_leads_moves_nothing(database: Database) -> None:
    old = leases.acquire(database, "first", 0)
    leases.acquire(database, "second", 60)
    with database.write() as session:
        job = _make(session, "job", "queued")
    with pytest.raises(LeaseLost, match="must stop"), database.write() as session:
        move(session, job, "submitted", actor="daemon", reason="r", epoch=old)
    with database.read() as session:
        assert session.get_one(Job, job.id).state == "queued"


def test_of_eight_that_move_one_record_at_once_one_wins(database: Database) -> None:
    with database.write() as session:
        job = _make(session, "job", "queued")
        job_id = job.id
    outcomes: list[str] = []

    def try_it() -> None:
        with database.read() as session:
            mine = session.get_one(Job, job_id)
        barrier.wait()
        try:
            with database.write() as session:
                move(session, mine, "submitted", actor="me", reason="r")
            outcomes.append("won")
        except StaleRecord:
            outcomes.append("late")

    barrier = threading.Barrier(8)
    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["late"] * 7 + ["won"]


def test_a_stream_has_one_live_version(database: Database) -> None:
    with database.write() as session:
        rows.add_stream(session)
        rows.add_version(session, 1, state="live")
        second = rows.add_version(session, 2, state="evaluated")
    with pytest.raises(StaleRecord, match="another one"), database.write() as session:
        move(session, second, "live", actor="me", reason="r")


def test_closing_and_archiving_are_stamped(database: Database) -> None:
    before = now()
    with database.write() as session:
        plan = _make(session, "plan", "open")
        move(session, plan, "succeeded", actor="me", reason="r")
        assert getattr(plan, "closed_at") >= before  # noqa: B009 - only plans have it


def test_a_column_that_does_not_exist_is_an_error(database: Database) -> None:
    with pytest.raises(Exception, match="no_such_column"), database.write() as session:
        move(session, _make(session, "job", "queued"), "submitted", actor="me", reason="r", no_such_column=1)
