"""Who leads: one lease with an epoch that only grows. Every move of a daemon names the epoch it was started under."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from storage.database import Database, now
from storage.errors import LeaseHeld, LeaseLost
from storage.tables import Lease

LEADER = "leader"


def acquire(database: Database, holder: str, ttl_s: float) -> int:
    """Take the lead and return the new epoch. The same ``holder`` takes its own lease over at once.

    Raises:
        LeaseHeld: another holder's lease has not run out.
    """
    with database.write() as session:
        instant = _instant(session)
        lease = session.get(Lease, LEADER, with_for_update=True)
        if lease is None:
            lease = Lease(name=LEADER, holder=holder, epoch=0, expires_at=instant)
            session.add(lease)
        if lease.holder != holder and lease.expires_at > instant:
            raise LeaseHeld(f"{lease.holder} leads until {lease.expires_at.isoformat()}; stop it or wait")
        lease.holder = holder
        lease.epoch += 1
        lease.expires_at = instant + timedelta(seconds=ttl_s)
        return lease.epoch


def renew(database: Database, holder: str, epoch: int, ttl_s: float) -> None:
    """Lead for another ``ttl_s`` seconds.

    Raises:
        LeaseLost: somebody else leads by now.
    """
    with database.write() as session:
        _extend(session, holder, epoch, _instant(session) + timedelta(seconds=ttl_s))


def release(database: Database, holder: str, epoch: int) -> None:
    """Give the lead up, so that the next daemon need not wait.

    Raises:
        LeaseLost: somebody else leads by now.
    """
    with database.write() as session:
        _extend(session, holder, epoch, _instant(session))


def require(session: Session, epoch: int) -> None:
    """Check inside a transaction that ``epoch`` still leads.

    Raises:
        LeaseLost: it does not.
    """
    leader = session.scalar(select(Lease.epoch).where(Lease.name == LEADER))
    if leader != epoch:
        raise LeaseLost(f"epoch {epoch} no longer leads (now {leader}); this daemon must stop")


def _extend(session: Session, holder: str, epoch: int, expires_at: datetime) -> None:
    statement = update(Lease).where(Lease.name == LEADER, Lease.holder == holder, Lease.epoch == epoch)
    changed = session.connection().execute(statement.values(expires_at=expires_at)).rowcount
    if changed != 1:
        raise LeaseLost(f"{holder} no longer leads under epoch {epoch}; this daemon must stop")


def _instant(session: Session) -> datetime:
    """One clock for all daemons: the server's on PostgreSQL, the machine's on SQLite."""
    if session.get_bind().dialect.name == "postgresql":
        instant: datetime = session.scalars(select(func.clock_timestamp())).one()
        return instant.astimezone(UTC)
    return now()
