"""The SQL side of instructions: each function is part of one transaction under the leader's epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import exists, select, update
from sqlalchemy.orm import Session

from orchestrator.importing import IMPORTED, ImportReport, read_result
from orchestrator.jobs.executors.contract import Grant, Handle
from orchestrator.jobs.instructions import Cancel, Fail, MarkLost, Requeue
from storage import manifests
from storage.artifacts import ArtifactStore, ManifestRecord, Stored
from storage.errors import LeaseLost
from storage.files import read_json
from storage.leases import LEADER
from storage.moves import move
from storage.tables import Attempt, Job, Lease

ACTOR = "supervisor"


def require_leader(session: Session, epoch: int) -> None:
    """Nothing is started or signalled under an epoch that no longer leads.

    Raises:
        LeaseLost: it does not lead.
    """
    leader = session.scalar(select(Lease.epoch).where(Lease.name == LEADER))
    if leader != epoch:
        raise LeaseLost(f"epoch {epoch} no longer leads (now {leader}); this daemon must stop")


def submit(
    session: Session, job: Job, *, directory: Path, grant: Grant, host: str, epoch: int, at: datetime
) -> Attempt:
    """Queued to submitted, with the new attempt's row: from now on this attempt number can never be given again."""
    number = job.attempt + 1
    reason = f"attempt {number} with {grant.cpus} cores" + (f" and GPUs {list(grant.gpus)}" if grant.gpus else "")
    details = {"attempt": number, "cpus": grant.cpus, "gpus": list(grant.gpus)}
    move(session, job, "submitted", actor=ACTOR, reason=reason, epoch=epoch, details=details, attempt=number)
    attempt = Attempt(
        job_id=job.id,
        number=number,
        state="submitted",
        directory=str(directory),
        host=host,
        epoch=epoch,
        cpus=grant.cpus,
        gpus=list(grant.gpus),
        started_at=at,
    )
    session.add(attempt)
    session.flush()
    return attempt


def mark_running(session: Session, job: Job, attempt: Attempt, *, handle: Handle, epoch: int, at: datetime) -> None:
    """Submitted to running, with the identity of the process."""
    details = {"attempt": attempt.number, "pid": handle.pid}
    values: dict[str, Any] = {"started_at": job.started_at or at}
    move(session, job, "running", actor=ACTOR, reason=f"process {handle.pid}", epoch=epoch, details=details, **values)
    identity = {"boot_id": handle.boot_id, "pid": handle.pid, "process_started": handle.started}
    session.execute(update(Attempt).where(Attempt.id == attempt.id).values(state="running", **identity))


def end_attempt(
    session: Session,
    job: Job,
    attempt: Attempt | None,
    *,
    instruction: Cancel | Fail | MarkLost,
    exit_code: int | None,
    epoch: int,
    at: datetime,
) -> None:
    """The job fails, is lost or is cancelled, and its attempt with it."""
    state = {Cancel: "cancelled", Fail: "failed", MarkLost: "lost"}[type(instruction)]
    details = {"attempt": attempt.number, "exit_code": exit_code} if attempt else {}
    values: dict[str, Any] = {"finished_at": at, "error": instruction.reason}
    move(session, job, state, actor=ACTOR, reason=instruction.reason, epoch=epoch, details=details, **values)
    if attempt is not None:
        ended = {"state": state, "exit_code": exit_code, "error": instruction.reason, "finished_at": at}
        session.execute(update(Attempt).where(Attempt.id == attempt.id).values(**ended))


def requeue(session: Session, job: Job, instruction: Requeue, *, epoch: int) -> None:
    """Failed or lost back to queued; in the transaction that ended the attempt, so nobody takes the end for final."""
    reason = f"not before {instruction.not_before.isoformat(timespec='seconds')}"
    values: dict[str, Any] = {"not_before": instruction.not_before, "finished_at": None}
    move(session, job, "queued", actor=ACTOR, reason=reason, epoch=epoch, **values)


@dataclass(frozen=True, kw_only=True)
class Harvest:
    """What a finished attempt left, as it now lies in the store."""

    result: dict[str, Any]
    manifests: dict[str, ManifestRecord]
    objects: tuple[Stored, ...]


def harvest(directory: Path, store: ArtifactStore) -> Harvest:
    """Read what the import process wrote; per-example results are named by their object from here on.

    Raises:
        ResultRefused: ``result.json`` is malformed.
        StorageError, OSError, ValueError: the import's report or the store cannot be read.
    """
    report = ImportReport.model_validate(read_json(directory / IMPORTED))
    result = read_result(directory).model_dump(mode="json")
    for score in result["scores"]:
        score["results"] = report.results[score["results"]].hash
    return Harvest(
        result=result,
        manifests={role: store.read_manifest(manifest) for role, manifest in report.artifacts.items()},
        objects=tuple(Stored(hash=one.hash, bytes=one.bytes) for one in report.results.values()),
    )


def succeed(
    session: Session, job: Job, attempt: Attempt, *, got: Harvest, exit_code: int | None, epoch: int, at: datetime
) -> None:
    """Running to succeeded, everything it left registered in the same transaction."""
    for manifest in got.manifests.values():
        manifests.register(session, manifest)
    for stored in got.objects:
        manifests.register_object(session, stored)
    artifacts = {role: manifest.hash for role, manifest in got.manifests.items()}
    values: dict[str, Any] = {"result": got.result, "artifacts": artifacts, "error": None, "finished_at": at}
    details = {"attempt": attempt.number, "artifacts": artifacts}
    move(session, job, "succeeded", actor=ACTOR, reason="its result is stored", epoch=epoch, details=details, **values)
    ended = {"state": "succeeded", "exit_code": exit_code, "finished_at": at}
    session.execute(update(Attempt).where(Attempt.id == attempt.id).values(**ended))


def save_progress(session: Session, job: Job, progress: Mapping[str, Any], *, epoch: int) -> None:
    """Progress of a job that still runs this attempt, under this epoch; otherwise nothing."""
    session.execute(
        update(Job)
        .where(Job.id == job.id, Job.state == "running", Job.attempt == job.attempt)
        .where(exists().where(Lease.name == LEADER, Lease.epoch == epoch))
        .values(progress=dict(progress)),
        execution_options={"synchronize_session": False},
    )
