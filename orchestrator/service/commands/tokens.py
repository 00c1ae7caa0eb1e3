"""Keys to the control plane."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.errors import BadInput, NotFound
from orchestrator.service.records import NewToken, TokenRecord
from orchestrator.settings import NAME_IN_WORDS, is_name
from storage import events, tokens
from storage.tables import Token

ROLES = ("reader", "operator", "admin")


def create(app: App, name: str, *, role: str, expires_in_s: float | None, actor: str) -> NewToken:
    """Make a key; its secret is in this answer and nowhere else.

    Raises:
        BadInput: the name or the role is none.
        Conflict: the name is taken.
    """
    if not is_name(name):
        raise BadInput(f"token name {name!r} is not valid: {NAME_IN_WORDS}")
    if role not in ROLES:
        raise BadInput(f"unknown role {role!r}; choose one of {', '.join(ROLES)}")
    expires_at = None if expires_in_s is None else app.clock.now() + timedelta(seconds=expires_in_s)
    with app.database.write() as session:
        secret = tokens.create(session, name, role, expires_at)
        row = session.scalars(select(Token).where(Token.name == name)).one()
        _record_event(session, row, action="create", actor=actor)
        return NewToken(**_record(row).model_dump(), secret=secret)


def list_tokens(app: App) -> list[TokenRecord]:
    """All keys, revoked ones included, without their secrets."""
    with app.database.read() as session:
        return [_record(row) for row in session.scalars(select(Token).order_by(Token.id))]


def revoke(app: App, name: str, *, actor: str) -> TokenRecord:
    """End a key at once and for good.

    Raises:
        NotFound: there is no key of that name.
    """
    with app.database.write() as session:
        row = session.scalars(select(Token).where(Token.name == name)).first()
        if row is None:
            raise NotFound(f"there is no token {name!r}; `rekindle token list` shows those that exist")
        tokens.revoke(session, name)
        session.refresh(row)
        _record_event(session, row, action="revoke", actor=actor)
        return _record(row)


def _record_event(session: Session, row: Token, *, action: str, actor: str) -> None:
    events.record(
        session,
        stream_id=None,
        subject="token",
        subject_id=row.name,
        action=action,
        actor=actor,
        reason="asked for",
        details={"role": row.role},
    )


def _record(row: Token) -> TokenRecord:
    return TokenRecord(
        name=row.name, role=row.role, created_at=row.created_at, expires_at=row.expires_at, revoked_at=row.revoked_at
    )
