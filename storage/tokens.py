"""Keys to the control plane. Only their hashes are kept; a secret has 256 random bits, so a plain sha256 suffices."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.database import now
from storage.errors import TokenRefused
from storage.tables import Token


def create(session: Session, name: str, role: str, expires_at: datetime | None) -> str:
    """Make a key and return its secret, which is told this once.

    Raises:
        TokenRefused: the name was used before; names are not used again, so that the log stays readable.
    """
    if _find(session, name) is not None:
        raise TokenRefused(f"there is, or was, a token named {name!r}; choose another name")
    secret = f"rk_{secrets.token_urlsafe(32)}"
    session.add(Token(name=name, hash=_hash(secret), role=role, created_at=now(), expires_at=expires_at))
    session.flush()
    return secret


def check(session: Session, secret: str) -> Token | None:
    """The key of this secret, unless it is revoked or expired."""
    token = session.scalars(select(Token).where(Token.hash == _hash(secret))).one_or_none()
    if token is None or token.revoked_at is not None:
        return None
    return None if token.expires_at is not None and token.expires_at <= now() else token


def revoke(session: Session, name: str) -> None:
    """End a key at once and for good; again is harmless.

    Raises:
        TokenRefused: there is none of that name.
    """
    token = _find(session, name)
    if token is None:
        raise TokenRefused(f"there is no token named {name!r}; list them with: rekindle token list")
    token.revoked_at = token.revoked_at or now()
    session.flush()


def _find(session: Session, name: str) -> Token | None:
    return session.scalars(select(Token).where(Token.name == name)).one_or_none()


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
