"""Keys to the control plane."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select

from storage import tokens
from storage.database import Database, now
from storage.errors import TokenRefused
from storage.tables import Token


def test_a_secret_opens_as_its_role_and_is_kept_nowhere(database: Database) -> None:
    with database.write() as session:
        secret = tokens.create(session, "ci", "operator", None)
    with database.read() as session:
        found = tokens.check(session, secret)
        row = session.scalars(select(Token)).one()
    assert found is not None
    assert (found.name, found.role) == ("ci", "operator")
    assert secret not in {row.hash, row.name}
    assert len(secret) > 40


def test_wrong_revoked_and_expired_secrets_open_nothing(database: Database) -> None:
    with database.write() as session:
        expired = tokens.create(session, "expired", "admin", now() - timedelta(seconds=1))
        revoked = tokens.create(session, "revoked", "admin", now() + timedelta(days=1))
        tokens.revoke(session, "revoked")
        tokens.revoke(session, "revoked")
    with database.read() as session:
        assert [tokens.check(session, secret) for secret in (expired, revoked, "wrong", "")] == [None] * 4


def test_names_are_used_once_and_only_known_ones_are_revoked(database: Database) -> None:
    with database.write() as session:
        tokens.create(session, "ci", "reader", None)
        tokens.revoke(session, "ci")
        with pytest.raises(TokenRefused, match="another name"):
            tokens.create(session, "ci", "reader", None)
        with pytest.raises(TokenRefused, match="no token named"):
            tokens.revoke(session, "other")
