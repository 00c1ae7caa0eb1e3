"""The queries that run all the time use an index on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Select, select, text
from sqlalchemy.orm import Session

from storage.database import Database
from storage.tables import Batch, Document, Event, Job, StoredObject, Version, VersionParent
from tests.storage import rows

QUERIES: dict[str, tuple[Select[Any], str]] = {
    "the supervisor looks for jobs to start": (
        select(Job.id).where(Job.state == "queued").order_by(Job.priority, Job.id),
        "ix_jobs_state",
    ),
    "everything asks for the live version": (
        select(Version.id).where(Version.stream_id == "s", Version.state == text("'live'")),
        "uq_versions_live",
    ),
    "ingest looks for duplicates": (
        select(Document.id).where(Document.stream_id == "s", Document.digest.in_(["a", "b"])),
        "ix_documents_stream_digest",
    ),
    "a record shows its events": (
        select(Event.id).where(Event.subject == "job", Event.subject_id == "1"),
        "ix_events_subject",
    ),
    "a trigger counts what is pending": (
        select(Batch.id).where(Batch.stream_id == "s", Batch.state == "pending"),
        "ix_batches_stream_id",
    ),
    "collection looks for marks": (
        select(StoredObject.hash).where(StoredObject.marked_at <= text("'2026-01-01'")),
        "ix_objects_marked_at",
    ),
    "a walk goes up": (select(VersionParent.parent_id).where(VersionParent.child_id == 1), "pk_version_parents"),
    "a walk goes down": (
        select(VersionParent.child_id).where(VersionParent.parent_id == 1),
        "ix_version_parents_parent_id",
    ),
}


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.write() as opened:
        rows.add_stream(opened, id="s")
        batch = rows.add_batch(opened, stream_id="s")
        for row in range(300):
            rows.add_document(opened, batch, row, stream_id="s")
        opened.execute(text("ANALYZE documents"))
    with database.read() as opened:
        if database.dialect == "postgresql":
            opened.execute(text("SET LOCAL enable_seqscan = off"))  # most tables are empty; a scan would be cheaper
        yield opened


@pytest.mark.parametrize("name", QUERIES)
def test_a_frequent_query_uses_its_index(session: Session, name: str) -> None:
    query, index = QUERIES[name]
    dialect = session.get_bind().dialect
    statement = query.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    explain = "EXPLAIN" if dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    plan = " ".join(str(row[-1]) for row in session.execute(text(f"{explain} {statement}")))
    expected = "sqlite_autoindex_version_parents_1" if dialect.name == "sqlite" and index.startswith("pk_") else index
    assert expected in plan
    assert "SCAN" not in plan.replace("Bitmap Index Scan", "")
