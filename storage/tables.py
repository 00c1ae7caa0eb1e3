"""All tables of the lineage: what Rekindle must remember.

One rule for every table: rows are added and moved, never deleted or un-written. The few columns that change
(states, leases, counters) change through conditional updates in :mod:`storage.moves`. Uniqueness and legality are
constraints with the reason beside them, so that a second daemon or a bug cannot write what must not be.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from storage.columns import Base, BigId, one_of, unique_where
from storage.documents import Arrival, Batch, Document, DocumentBand, DocumentSketch, Quarantine
from storage.states import (
    DECISION_RESULTS,
    DECISION_STATES,
    JOB_KINDS,
    JOB_STATES,
    PLAN_STATES,
    STREAM_STATES,
    TRIGGER_STATES,
    VERSION_STATES,
    DecisionResult,
)

__all__ = [
    "Arrival",
    "Attempt",
    "Base",
    "Batch",
    "ChainHead",
    "Decision",
    "Document",
    "DocumentBand",
    "DocumentSketch",
    "EvalSet",
    "Evaluation",
    "Event",
    "Firing",
    "Job",
    "Lease",
    "Manifest",
    "ManifestEntry",
    "Plan",
    "Promotion",
    "Quarantine",
    "StoredObject",
    "Stream",
    "StreamRevision",
    "Token",
    "Trigger",
    "Verdict",
    "Version",
    "VersionArtifact",
    "VersionBatch",
    "VersionParent",
]


class Stream(Base):
    """A source of data with a live model. ``id`` is immutable; ``name`` may be used again once archived."""

    __tablename__ = "streams"
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(63))
    task: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))
    split_key: Mapped[str] = mapped_column(String(64))
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    archived_at: Mapped[datetime | None]
    __table_args__ = (
        one_of("state", STREAM_STATES),
        # A name belongs to one stream that is not archived.
        unique_where("uq_streams_active_name", "name", where="archived_at IS NULL"),
    )


class StreamRevision(Base):
    """The settings of a stream at one time; every decision names its revision."""

    __tablename__ = "stream_revisions"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"))
    number: Mapped[int]
    settings: Mapped[dict[str, Any]]
    origins: Mapped[dict[str, Any]]
    settings_hash: Mapped[str] = mapped_column(String(64))
    actor: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime]
    __table_args__ = (UniqueConstraint("stream_id", "number"),)


class EvalSet(Base):
    """A frozen set of documents that no training may see, each marked ``select`` or ``judge``."""

    __tablename__ = "eval_sets"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"))
    name: Mapped[str] = mapped_column(Text)
    kind: Mapped[str] = mapped_column(String(16))
    content_hash: Mapped[str] = mapped_column(String(64))
    documents: Mapped[int]
    batch_id: Mapped[int | None] = mapped_column(ForeignKey("batches.id"))
    members: Mapped[list[Any]]
    labels: Mapped[list[Any]]
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime]
    __table_args__ = (
        one_of("kind", ("anchor", "fixed", "batch", "pool")),
        UniqueConstraint("stream_id", "name", "content_hash"),
    )


class Trigger(Base):
    """When a stream retrains."""

    __tablename__ = "triggers"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"))
    name: Mapped[str] = mapped_column(String(63))
    kind: Mapped[str] = mapped_column(String(32))
    settings: Mapped[dict[str, Any]]
    timezone: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    next_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    __table_args__ = (one_of("state", TRIGGER_STATES), UniqueConstraint("stream_id", "name"))


class Firing(Base):
    """A trigger's verdict at one instant, with the reason."""

    __tablename__ = "firings"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    trigger_id: Mapped[int] = mapped_column(ForeignKey("triggers.id"))
    due_at: Mapped[datetime]
    timezone: Mapped[str] = mapped_column(String(64))
    verdict: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    evidence: Mapped[dict[str, Any]]
    decision_id: Mapped[int | None] = mapped_column(ForeignKey("decisions.id"))
    created_at: Mapped[datetime]
    __table_args__ = (
        one_of("verdict", ("fired", "deferred", "skipped", "declined")),
        # The truth of scheduling: one row for a trigger and an instant, however many alarm clocks ring.
        UniqueConstraint("trigger_id", "due_at"),
    )


class Decision(Base):
    """The recorded choice of strategy, data and settings.

    ``result`` is how it ended, which other decisions go by; ``outcome`` says it to people.
    """

    __tablename__ = "decisions"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"), index=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("stream_revisions.id"))
    parent_version_id: Mapped[int] = mapped_column(ForeignKey("versions.id", use_alter=True))
    state: Mapped[str] = mapped_column(String(16))
    key: Mapped[str] = mapped_column(String(64), unique=True)
    requested: Mapped[str] = mapped_column(String(63))
    strategy: Mapped[str | None] = mapped_column(String(63))
    batches: Mapped[list[Any]]
    signals: Mapped[dict[str, Any]]
    settings: Mapped[dict[str, Any]]
    reason: Mapped[str] = mapped_column(Text)
    alternatives: Mapped[list[Any]]
    result: Mapped[DecisionResult | None] = mapped_column(String(16))
    outcome: Mapped[str | None] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    __table_args__ = (
        one_of("state", DECISION_STATES),
        one_of("result", DECISION_RESULTS),
        # A second retrain returns the queued decision: only one is open.
        unique_where("uq_decisions_open", "stream_id", where="closed_at IS NULL"),
    )


class Plan(Base):
    """The executable form of a decision: a small graph of jobs, constants and seeds by value."""

    __tablename__ = "plans"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"))
    decision_id: Mapped[int] = mapped_column(ForeignKey("decisions.id"), unique=True)
    state: Mapped[str] = mapped_column(String(16))
    spec: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    __table_args__ = (
        one_of("state", PLAN_STATES),
        unique_where("uq_plans_open", "stream_id", where="state = 'open'"),
    )


class Job(Base):
    """One run of the job process; ``kind`` is its work's, ``key`` makes queueing idempotent."""

    __tablename__ = "jobs"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"), index=True)
    decision_id: Mapped[int | None] = mapped_column(ForeignKey("decisions.id"), index=True)
    plan_id: Mapped[int | None] = mapped_column(ForeignKey("plans.id"), index=True)
    version_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id", use_alter=True), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(String(63))
    key: Mapped[str] = mapped_column(String(255), unique=True)
    state: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(default=0)
    max_attempts: Mapped[int]
    priority: Mapped[int] = mapped_column(default=0)
    cpus: Mapped[int] = mapped_column(default=1)
    gpus: Mapped[int] = mapped_column(default=0)
    timeout_s: Mapped[int]
    spec: Mapped[dict[str, Any]]
    needs: Mapped[list[Any]]
    progress: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    artifacts: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[str | None] = mapped_column(Text)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    not_before: Mapped[datetime | None]
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        one_of("state", JOB_STATES),
        one_of("kind", JOB_KINDS),
        UniqueConstraint("plan_id", "name"),
        Index("ix_jobs_state", "state", "priority", "id"),
    )


class Attempt(Base):
    """One process that carried out a job: who it was, where it ran, how it ended."""

    __tablename__ = "attempts"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    directory: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(String(255))
    boot_id: Mapped[str | None] = mapped_column(String(64))
    pid: Mapped[int | None]
    process_started: Mapped[int | None] = mapped_column(BigInteger)
    epoch: Mapped[int]
    cpus: Mapped[int]
    gpus: Mapped[list[Any]]
    exit_code: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    __table_args__ = (one_of("state", JOB_STATES), UniqueConstraint("job_id", "number"))


class Version(Base):
    """A model in the lineage. Its state moves; what it is and where it came from is hashed and never changes."""

    __tablename__ = "versions"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    strategy: Mapped[str] = mapped_column(String(63))
    decision_id: Mapped[int | None] = mapped_column(ForeignKey("decisions.id"))
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"))
    model_hash: Mapped[str] = mapped_column(String(64))
    facts: Mapped[dict[str, Any]]
    pinned: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    previous_hash: Mapped[str] = mapped_column(String(64))
    row_hash: Mapped[str] = mapped_column(String(64))
    __table_args__ = (
        one_of("state", VERSION_STATES),
        UniqueConstraint("stream_id", "number"),
        # Exactly one model answers for a stream.
        unique_where("uq_versions_live", "stream_id", where="state = 'live'"),
    )


class VersionParent(Base):
    """An edge of the lineage graph."""

    __tablename__ = "version_parents"
    child_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    parent_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), primary_key=True, index=True)
    role: Mapped[str] = mapped_column(String(32), primary_key=True)
    weight: Mapped[float] = mapped_column(default=1.0)
    __table_args__ = (CheckConstraint("child_id <> parent_id", name="not_its_own_parent"),)


class VersionArtifact(Base):
    """What a version consists of: ``role`` is answer/…, state/… or evidence/…; the hash names a manifest."""

    __tablename__ = "version_artifacts"
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    role: Mapped[str] = mapped_column(String(63), primary_key=True)
    manifest_hash: Mapped[str] = mapped_column(ForeignKey("manifests.hash"), index=True)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"))


class VersionBatch(Base):
    """Which rows of which snapshot a version's own training consumed; bit n of ``rows`` is row n, lowest bit first."""

    __tablename__ = "version_batches"
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), primary_key=True)
    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"), primary_key=True, index=True)
    role: Mapped[str] = mapped_column(String(16), primary_key=True)
    snapshot_hash: Mapped[str] = mapped_column(String(64))
    rows: Mapped[bytes] = mapped_column(LargeBinary)
    documents: Mapped[int]
    samples: Mapped[int]
    __table_args__ = (one_of("role", ("trained", "replayed")),)


class Evaluation(Base):
    """The score of a version on one eval set; ``results_hash`` names the per-example results."""

    __tablename__ = "evaluations"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"))
    eval_set_id: Mapped[int] = mapped_column(ForeignKey("eval_sets.id"), index=True)
    eval_set_hash: Mapped[str] = mapped_column(String(64))
    settings_hash: Mapped[str] = mapped_column(String(64))
    metric: Mapped[str] = mapped_column(String(32))
    value: Mapped[float]
    value_select: Mapped[float | None]
    value_judge: Mapped[float | None]
    examples: Mapped[int]
    details: Mapped[dict[str, Any]]
    results_hash: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"))
    created_at: Mapped[datetime]
    previous_hash: Mapped[str] = mapped_column(String(64))
    row_hash: Mapped[str] = mapped_column(String(64))
    __table_args__ = (UniqueConstraint("version_id", "eval_set_hash", "settings_hash"),)


class Verdict(Base):
    """What the gate said of a candidate against one live version, per eval set, with reasons and flips."""

    __tablename__ = "verdicts"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"), index=True)
    compared_with_id: Mapped[int] = mapped_column(ForeignKey("versions.id"))
    outcome: Mapped[str] = mapped_column(String(16))
    mode: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    details: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    __table_args__ = (one_of("outcome", ("pass", "fail", "inconclusive")), one_of("mode", ("enforce", "record")))


class Promotion(Base):
    """A version became live. The newest row of a stream is the truth; links on disk follow it."""

    __tablename__ = "promotions"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    stream_id: Mapped[str] = mapped_column(ForeignKey("streams.id"), index=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("versions.id"))
    previous_version_id: Mapped[int | None] = mapped_column(ForeignKey("versions.id"))
    kind: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    actor: Mapped[str] = mapped_column(String(255))
    verdict_id: Mapped[int | None] = mapped_column(ForeignKey("verdicts.id"))
    created_at: Mapped[datetime]
    previous_hash: Mapped[str] = mapped_column(String(64))
    row_hash: Mapped[str] = mapped_column(String(64))
    __table_args__ = (one_of("kind", ("initial", "promotion", "recorded", "forced", "rollback")),)


class Event(Base):
    """Every move of every record, with its actor; written in the same transaction as the move."""

    __tablename__ = "events"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    stream_id: Mapped[str | None] = mapped_column(ForeignKey("streams.id"), index=True)
    subject: Mapped[str] = mapped_column(String(32))
    subject_id: Mapped[str] = mapped_column(String(64))
    action: Mapped[str] = mapped_column(String(32))
    from_state: Mapped[str | None] = mapped_column(String(16))
    to_state: Mapped[str | None] = mapped_column(String(16))
    actor: Mapped[str] = mapped_column(String(255))
    reason: Mapped[str] = mapped_column(Text)
    details: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    previous_hash: Mapped[str] = mapped_column(String(64))
    row_hash: Mapped[str] = mapped_column(String(64))
    __table_args__ = (Index("ix_events_subject", "subject", "subject_id"),)


class ChainHead(Base):
    """The newest row hash of each chained table; locking this row orders the writers."""

    __tablename__ = "chain_heads"
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    row_hash: Mapped[str] = mapped_column(String(64))


class Token(Base):
    """A key to the control plane, kept as a hash only."""

    __tablename__ = "tokens"
    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    __table_args__ = (one_of("role", ("admin", "operator", "reader")),)


class Lease(Base):
    """Who leads. Every conditional update of the daemon names the epoch it was started under."""

    __tablename__ = "leases"
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    holder: Mapped[str] = mapped_column(String(255))
    epoch: Mapped[int]
    expires_at: Mapped[datetime]


class StoredObject(Base):
    """A file of the artifact store, named by the sha256 of its bytes; gc marks it first and deletes its bytes later."""

    __tablename__ = "objects"
    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    marked_at: Mapped[datetime | None] = mapped_column(index=True)
    deleted_at: Mapped[datetime | None]
    created_at: Mapped[datetime]


class Manifest(Base):
    """A folder of objects: relative path to object. Tensors are entries of kind ``tensor`` named by the tensor,
    parts laid over one of kind ``patch``."""

    __tablename__ = "manifests"
    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


class ManifestEntry(Base):
    """One file or tensor of a manifest, or what is laid over an earlier model's tensor."""

    __tablename__ = "manifest_entries"
    manifest_hash: Mapped[str] = mapped_column(ForeignKey("manifests.hash"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    path: Mapped[str] = mapped_column(String(512), primary_key=True)
    object_hash: Mapped[str] = mapped_column(ForeignKey("objects.hash"), index=True)
    __table_args__ = (one_of("kind", ("file", "tensor", "patch")),)
