"""Run by Alembic; :mod:`storage.schema` hands over the open connection, in whose transaction everything happens."""

from __future__ import annotations

from alembic import context

from storage.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
