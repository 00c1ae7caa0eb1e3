"""Alembic revisions of the schema; they go up only."""
