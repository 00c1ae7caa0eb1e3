"""One leader at a time, and epochs that only grow."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import update

from storage import leases
from storage.database import Database, now
from storage.errors import LeaseHeld, LeaseLost
from storage.tables import Lease


def _expire(database: Database) -> None:
    with database.write() as session:
        session.execute(update(Lease).values(expires_at=now() - timedelta(seconds=1)))


def test_a_second_holder_is_told_who_leads(database: Database) -> None:
    leases.acquire(database, "first", 60)
    with pytest.raises(LeaseHeld, match="first leads until"):
        leases.acquire(database, "second", 60)


def test_when_the_lease_ran_out_another_takes_it_under_a_greater_epoch(database: Database) -> None:
    first = leases.acquire(database, "first", 60)
    _expire(database)
    assert leases.acquire(database, "second", 60) > first


def test_who_lost_the_lease_learns_it_at_the_next_renewal(database: Database) -> None:
    epoch = leases.acquire(database, "first", 60)
    _expire(database)
    leases.acquire(database, "second", 60)
    with pytest.raises(LeaseLost):
        leases.renew(database, "first", epoch, 60)


def test_a_late_renewal_is_fine_while_nobody_else_came(database: Database) -> None:
    epoch = leases.acquire(database, "first", 60)
    _expire(database)
    leases.renew(database, "first", epoch, 60)
    with pytest.raises(LeaseHeld):
        leases.acquire(database, "second", 60)


def test_the_same_holder_takes_over_at_once_under_a_greater_epoch(database: Database) -> None:
    first = leases.acquire(database, "first", 60)
    assert leases.acquire(database, "first", 60) == first + 1


def test_a_released_lease_is_free(database: Database) -> None:
    epoch = leases.acquire(database, "first", 60)
    leases.release(database, "first", epoch)
    assert leases.acquire(database, "second", 60) == epoch + 1


def test_an_old_epoch_is_refused_inside_a_transaction(database: Database) -> None:
    old = leases.acquire(database, "first", 60)
    new = leases.acquire(database, "first", 60)
    with database.write() as session:
        leases.require(session, new)
        with pytest.raises(LeaseLost):
            leases.require(session, old)
