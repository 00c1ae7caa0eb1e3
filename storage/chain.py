"""Row-hash chains: an edited, deleted or reordered row of the lineage is found.

Each row's hash covers its immutable columns and the hash of the row before it; the newest hash of a table stands in
``chain_heads``. Ids are given here, one after the other, so that they are under the hash too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import JSON, ColumnElement, Float, Table, func, select
from sqlalchemy.orm import Session

from storage.database import now
from storage.tables import ChainHead, Evaluation, Event, Promotion, Version

GENESIS = "0" * 64
MAX_PROBLEMS = 100
_MOVABLE = {"versions": frozenset({"state", "pinned"})}

Row = TypeVar("Row", Version, Evaluation, Promotion, Event)
CHAINED: tuple[type[Version] | type[Evaluation] | type[Promotion] | type[Event], ...] = (
    Version,
    Evaluation,
    Promotion,
    Event,
)


def append(session: Session, row: Row) -> Row:
    """Add a row at the end of its table's chain and flush it; fills ``id``, hashes and, if unset, ``created_at``."""
    table = _table(type(row))
    head = session.get(ChainHead, table.name, with_for_update=True, populate_existing=True)
    if head is None:
        head = ChainHead(name=table.name, row_hash=GENESIS)
        session.add(head)
    row.id = 1 + session.scalars(select(func.coalesce(func.max(table.c.id), 0))).one()
    row.created_at = row.created_at or now()
    row.previous_hash = head.row_hash
    row.row_hash = _row_hash(table, {column.name: getattr(row, column.name) for column in table.columns})
    head.row_hash = row.row_hash
    session.add(row)
    session.flush()
    return row


def verify(session: Session) -> list[str]:
    """Read every chained row; one sentence for each problem, at most a hundred a table. Empty: nothing was touched."""
    return [problem for model in CHAINED for problem in _verify_table(session, _table(model))]


def _verify_table(session: Session, table: Table) -> list[str]:
    problems: list[str] = []
    expected = GENESIS
    rows = session.execute(select(table).order_by(table.c.id), execution_options={"yield_per": 1000})
    for row in rows.mappings():
        if len(problems) >= MAX_PROBLEMS:
            return problems
        if row["previous_hash"] != expected:
            problems.append(f"{table.name} row {row['id']}: a row before it was deleted, added or moved")
        if row["row_hash"] != _row_hash(table, dict(row)):
            problems.append(f"{table.name} row {row['id']}: its contents were changed")
        expected = row["row_hash"]
    head = session.scalar(select(ChainHead.row_hash).where(ChainHead.name == table.name))
    if (head or GENESIS) != expected:
        problems.append(f"{table.name}: the newest rows were deleted, added or moved")
    return problems


def _table(model: type[Any]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)
    return table


def _row_hash(table: Table, row: Mapping[str, Any]) -> str:
    skipped = _MOVABLE.get(table.name, frozenset()) | {"row_hash"}
    values = {column.name: _plain(column, row[column.name]) for column in table.columns if column.name not in skipped}
    text = json.dumps([table.name, values], sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(column: ColumnElement[Any], value: Any) -> Any:
    """The value as it will come back from either database."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    if isinstance(column.type, Float):
        return float(value)
    if isinstance(column.type, JSON):
        return json.loads(json.dumps(value, allow_nan=False))
    return value
