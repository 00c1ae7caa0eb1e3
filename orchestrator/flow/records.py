"""Questions that several steps of the flow ask of the records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from orchestrator.errors import NotFound
from orchestrator.settings import StreamSettings
from storage import lineage
from storage.tables import (
    Arrival,
    Batch,
    Decision,
    EvalSet,
    Evaluation,
    Job,
    Stream,
    StreamRevision,
    Version,
    VersionArtifact,
)
from strategies.contract import JobResult, QueuedSpec, Work

OneWork = TypeVar("OneWork", bound=Work)
ROOTS = ("base", "rebase")
"""Strategies of versions without parents."""


def stream_by_name(session: Session, name: str) -> Stream:
    """The stream of that name that is not archived.

    Raises:
        NotFound: there is none.
    """
    found = session.scalar(select(Stream).where(Stream.name == name, Stream.archived_at.is_(None)))
    if found is None:
        raise NotFound(f"there is no stream {name!r}; `rekindle stream list` shows those that exist")
    return found


def working_streams(session: Session) -> Sequence[Stream]:
    """Streams whose data, jobs and candidates are to be looked after, paused ones included."""
    return session.scalars(select(Stream).where(Stream.state.in_(("active", "paused"))).order_by(Stream.name)).all()


def revision_of(session: Session, stream_id: str) -> StreamRevision:
    """The newest revision of a stream's settings."""
    return session.scalars(
        select(StreamRevision)
        .where(StreamRevision.stream_id == stream_id)
        .order_by(StreamRevision.number.desc())
        .limit(1)
    ).one()


def settings_of(session: Session, stream_id: str) -> StreamSettings:
    """The stream's present settings."""
    return StreamSettings.model_validate(revision_of(session, stream_id).settings)


def revision_settings(session: Session, revision_id: int) -> StreamSettings:
    """The settings of one revision."""
    return StreamSettings.model_validate(session.get_one(StreamRevision, revision_id).settings)


def live_of(session: Session, stream: Stream) -> Version:
    """The live version.

    Raises:
        NotFound: the stream is still being registered.
    """
    live = lineage.live_version(session, stream.id)
    if live is None:
        raise NotFound(f"stream {stream.name!r} has no live version yet; `rekindle stream show {stream.name}` says why")
    return live


def lacks_anchor(session: Session, stream: Stream) -> bool:
    """Whether the stream has no anchor of its own, so that documents sampled from the base must stand in."""
    return stream.task == "causal-lm" and settings_of(session, stream.id).anchor is None


def sampling_of(session: Session, stream_id: str) -> Job | None:
    """The job that samples documents from the base, once there is one."""
    return session.scalar(select(Job).where(Job.key == sampling_key(stream_id)))


def sampling_key(stream_id: str) -> str:
    """The key of :func:`sampling_of`."""
    return f"sample:{stream_id}"


def samples_name(job: Job) -> str:
    """What a sampling's documents are called when they arrive."""
    return f"samples of job {job.id}"


def refusal_of_samples(session: Session, stream_id: str) -> str | None:
    """Why the documents sampled from the base cannot stand in for an anchor, if so."""
    job = sampling_of(session, stream_id)
    if job is None:
        return None
    of_no_use = (Arrival.stream_id == stream_id, Arrival.name == samples_name(job), Arrival.batch_id.is_(None))
    return session.scalar(select(Arrival.reason).where(*of_no_use).limit(1))


def base_of(session: Session, stream_id: str) -> Version:
    """The root that the live version stems from: the base model as registered, or as last rebased."""
    live = lineage.live_version(session, stream_id)
    assert live is not None, "a stream has a base as soon as it has a live version"
    return root_of(session, live)


def root_of(session: Session, version: Version) -> Version:
    """The base that a version stands on: the newest root among its ancestors and itself."""
    line = [version.id, *lineage.ancestors(session, version.id)]
    roots = select(Version).where(Version.id.in_(line), Version.strategy.in_(ROOTS)).order_by(Version.number.desc())
    return session.scalars(roots.limit(1)).one()


def artifacts_of(session: Session, version_id: int) -> dict[str, str]:
    """Role -> manifest hash."""
    rows = session.scalars(select(VersionArtifact).where(VersionArtifact.version_id == version_id))
    return {row.role: row.manifest_hash for row in rows}


def open_decision(session: Session, stream_id: str) -> Decision | None:
    """The decision that is not closed yet, if any: at most one a stream."""
    return session.scalar(select(Decision).where(Decision.stream_id == stream_id, Decision.closed_at.is_(None)))


def pending_batches(session: Session, stream_id: str) -> Sequence[Batch]:
    """Data batches that wait for training and have something to train on, oldest first."""
    return session.scalars(
        select(Batch)
        .where(Batch.stream_id == stream_id, Batch.kind == "data", Batch.state == "pending", Batch.train_documents > 0)
        .order_by(Batch.id)
    ).all()


def anchor_batches(session: Session, stream_id: str) -> Sequence[Batch]:
    """The batches that stand for what the base knows."""
    return session.scalars(
        select(Batch)
        .where(Batch.stream_id == stream_id, Batch.kind == "anchor", Batch.state == "trained")
        .order_by(Batch.id)
    ).all()


def batches_by_id(session: Session, ids: Iterable[int]) -> dict[int, Batch]:
    """The named batches."""
    return {batch.id: batch for batch in session.scalars(select(Batch).where(Batch.id.in_(list(ids))))}


def active_sets(session: Session, stream_id: str) -> Sequence[EvalSet]:
    """The eval sets that every candidate is measured on, the anchor first."""
    found = session.scalars(
        select(EvalSet).where(EvalSet.stream_id == stream_id, EvalSet.active).order_by(EvalSet.id)
    ).all()
    return sorted(found, key=lambda one: (one.kind != "anchor", one.id))


def evaluations_of(session: Session, version_id: int, settings_hash: str) -> dict[str, Evaluation]:
    """Content hash of an eval set -> evaluation of the version under these settings."""
    rows = session.scalars(
        select(Evaluation).where(Evaluation.version_id == version_id, Evaluation.settings_hash == settings_hash)
    )
    return {row.eval_set_hash: row for row in rows}


def jobs_of_plan(session: Session, plan_id: int) -> Sequence[Job]:
    """The jobs of a plan in their order."""
    return session.scalars(select(Job).where(Job.plan_id == plan_id).order_by(Job.id)).all()


def spec_of(job: Job) -> QueuedSpec:
    """What a job was told."""
    return QueuedSpec.model_validate(job.spec)


def work_of(job: Job, kind: type[OneWork]) -> OneWork:
    """The work that a job of that kind was given."""
    work = spec_of(job).work
    assert isinstance(work, kind)
    return work


def result_of(job: Job) -> JobResult:
    """What a job answered that has succeeded."""
    return JobResult.model_validate(job.result)


def fingerprint(value: Any) -> str:
    """sha256 of the canonical JSON of a value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def source_name(batch: Batch) -> str:
    """The name under which a batch's rows are drawn."""
    return batch.drawn_as or ("anchor" if batch.kind == "anchor" else f"batch-{batch.id}")


def known_labels(session: Session, version: Version) -> list[str]:
    """The classes that a version knows, in head order."""
    return [str(label) for label in version.facts.get("labels", [])]
