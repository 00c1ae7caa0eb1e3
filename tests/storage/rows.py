"""Rows for tests, with defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from storage import chain
from storage.database import now
from storage.tables import (
    Base,
    Batch,
    Decision,
    Document,
    EvalSet,
    Evaluation,
    Job,
    Plan,
    Promotion,
    Stream,
    StreamRevision,
    Trigger,
    Version,
    VersionArtifact,
    VersionBatch,
    VersionParent,
)

STREAM = "5" * 32
Row = TypeVar("Row", bound=Base)


def add_stream(session: Session, **values: Any) -> Stream:
    defaults = {"id": STREAM, "name": "news", "task": "causal-lm", "state": "active", "split_key": "k"}
    return _add(session, Stream(**{**defaults, "created_at": now(), **values}))


def add_batch(session: Session, name: str = "a", **values: Any) -> Batch:
    counts = dict.fromkeys(
        ("documents", "train_documents", "heldout_documents", "duplicates", "near_duplicates", "conflicts", "leaked",
         "quarantined"), 0
    )  # fmt: skip
    defaults = {"stream_id": STREAM, "kind": "data", "name": name, "state": "pending", "arrival_hash": name}
    return _add(
        session, Batch(**{**defaults, **counts, "snapshot_hash": name, "labels": [], "created_at": now(), **values})
    )


def add_document(session: Session, batch: Batch, row: int, **values: Any) -> Document:
    digest = f"{batch.id}-{row}"
    names = dict.fromkeys(("digest", "content_digest", "cluster"), digest)
    defaults = {"stream_id": STREAM, "batch_id": batch.id, "row": row, "split": "train", "state": "present"}
    return _add(session, Document(**{**defaults, **names, **values}))


def add_version(session: Session, number: int, parents: tuple[Version, ...] = (), **values: Any) -> Version:
    defaults = {"stream_id": STREAM, "state": "candidate", "strategy": "naive", "model_hash": "m", "facts": {}}
    version = chain.append(session, Version(**{**defaults, "number": number, "pinned": False, **values}))
    for position, parent in enumerate(parents):
        role = "init" if position == 0 else f"merged-{position}"
        session.add(VersionParent(child_id=version.id, parent_id=parent.id, role=role))
    session.flush()
    return version


def add_use(session: Session, version: Version, batch: Batch, role: str = "trained") -> VersionBatch:
    return _add(
        session,
        VersionBatch(
            version_id=version.id, batch_id=batch.id, role=role, snapshot_hash=batch.snapshot_hash, rows=b"\xff",
            documents=1, samples=1,
        ),
    )  # fmt: skip


def add_promotion(session: Session, version: Version, previous: Version | None, kind: str = "promotion") -> Promotion:
    row = Promotion(
        stream_id=version.stream_id, version_id=version.id, previous_version_id=previous.id if previous else None,
        kind=kind, reason="r", actor="me",
    )  # fmt: skip
    return chain.append(session, row)


def add_artifact(session: Session, version: Version, role: str, manifest_hash: str) -> VersionArtifact:
    return _add(session, VersionArtifact(version_id=version.id, role=role, manifest_hash=manifest_hash))


def add_eval_set(session: Session, name: str = "anchor", *, labels: Sequence[str] = ()) -> EvalSet:
    return _add(
        session,
        EvalSet(
            stream_id=STREAM, name=name, kind="fixed", content_hash=name, documents=1, members=[], labels=[*labels],
            created_at=now(),
        ),
    )  # fmt: skip


def add_evaluation(
    session: Session, version: Version, name: str = "anchor", *, eval_set: EvalSet | None = None, **values: Any
) -> Evaluation:
    eval_set = eval_set or add_eval_set(session, name)
    defaults = {
        "eval_set_hash": eval_set.content_hash,
        "settings_hash": "s",
        "metric": "loss",
        "value": 1,
        "examples": 1,
        "details": {},
    }
    row = Evaluation(
        **{**defaults, "version_id": version.id, "eval_set_id": eval_set.id, "results_hash": "r", **values}
    )
    return chain.append(session, row)


def add_decision(session: Session, version: Version, **values: Any) -> Decision:
    revision = _add(
        session,
        StreamRevision(
            stream_id=STREAM, number=1, settings={}, origins={}, settings_hash="h", actor="me", created_at=now()
        ),
    )
    defaults: dict[str, Any] = {
        "stream_id": STREAM,
        "state": "measuring",
        "key": "k",
        "requested": "auto",
        "batches": [],
    }
    facts: dict[str, Any] = {"signals": {}, "settings": {}, "reason": "r", "alternatives": [], "actor": "me"}
    links = {"revision_id": revision.id, "parent_version_id": version.id, "created_at": now()}
    return _add(session, Decision(**{**defaults, **facts, **links, **values}))


def add_plan(session: Session, decision: Decision, **values: Any) -> Plan:
    plan = Plan(stream_id=STREAM, decision_id=decision.id, state="open", spec={}, created_at=now())
    return _add(session, _with(plan, values))


def add_job(session: Session, key: str = "j", **values: Any) -> Job:
    defaults: dict[str, Any] = {"stream_id": STREAM, "kind": "train", "name": "train", "key": key, "state": "queued"}
    limits: dict[str, Any] = {"max_attempts": 3, "timeout_s": 60, "spec": {}, "needs": [], "progress": {}}
    return _add(session, Job(**{**defaults, **limits, "created_at": now(), **values}))


def add_trigger(session: Session, **values: Any) -> Trigger:
    defaults = {
        "stream_id": STREAM,
        "name": "cron",
        "kind": "cron",
        "settings": {},
        "timezone": "UTC",
        "state": "active",
    }
    return _add(session, Trigger(**{**defaults, "created_at": now(), **values}))


def _add(session: Session, row: Row) -> Row:
    session.add(row)
    session.flush()
    return row


def _with(row: Row, values: dict[str, Any]) -> Row:
    for name, value in values.items():
        setattr(row, name, value)
    return row
