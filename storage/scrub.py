"""Read a few objects of the store again, so that damage is known before the bytes are needed."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from storage.artifacts import ArtifactStore
from storage.database import Database
from storage.errors import ArtifactCorrupt, ArtifactMissing
from storage.tables import Batch, EvalSet, ManifestEntry, StoredObject, Stream, Version, VersionArtifact

OBJECTS = 50
BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Damage:
    """An object that is not as it was stored, and what needs it: stream id to versions, batches and eval sets."""

    hash: str
    problem: str
    affected: dict[str, tuple[str, ...]]


def scrub(
    database: Database, store: ArtifactStore, *, objects: int = OBJECTS, limit_bytes: int = BYTES
) -> list[Damage]:
    """Verify a random sample of at most ``objects``; it ends with the object that reaches ``limit_bytes``."""
    found = []
    read = 0
    for name, size in _sample(database, objects):
        problem = _problem(database, store, name)
        if problem is not None:
            with database.read() as session:
                found.append(Damage(hash=name, problem=problem, affected=_affected(session, name)))
        read += size
        if read >= limit_bytes:
            break
    return found


def _sample(database: Database, objects: int) -> list[tuple[str, int]]:
    """Objects that something needs: gc has no eye on them."""
    kept = select(StoredObject.hash, StoredObject.bytes).where(
        StoredObject.marked_at.is_(None), StoredObject.deleted_at.is_(None)
    )
    with database.read() as session:
        return [(name, size) for name, size in session.execute(kept.order_by(func.random()).limit(objects))]


def _problem(database: Database, store: ArtifactStore, name: str) -> str | None:
    try:
        store.verify(name)
    except ArtifactCorrupt as error:
        return str(error)
    except ArtifactMissing as error:
        with database.read() as session:  # gc may have come in between
            return None if session.get_one(StoredObject, name).deleted_at is not None else str(error)
    except OSError as error:
        return f"object {name} cannot be read ({error}); see to the disk, restore it from a backup"
    return None


def _affected(session: Session, name: str) -> dict[str, tuple[str, ...]]:
    manifests = select(ManifestEntry.manifest_hash).where(ManifestEntry.object_hash == name)
    roles = VersionArtifact.manifest_hash
    versions = (
        select(Stream.id, Stream.name, Version.number)
        .join(Version, Version.stream_id == Stream.id)
        .join(VersionArtifact, VersionArtifact.version_id == Version.id)
        .where((roles == name) | roles.in_(manifests))
        .distinct()
        .order_by(Stream.id, Version.number)
    )
    batches = select(Batch.stream_id, Batch.id).where(Batch.snapshot_hash == name).order_by(Batch.id)
    sets = select(EvalSet.stream_id, EvalSet.name).where(EvalSet.content_hash == name).order_by(EvalSet.id)
    found: dict[str, tuple[str, ...]] = {}
    labels = [(stream_id, f"version {stream}/{number}") for stream_id, stream, number in session.execute(versions)]
    labels += [(stream_id, f"batch {batch}") for stream_id, batch in session.execute(batches)]
    labels += [(stream_id, f"eval set {title}") for stream_id, title in session.execute(sets)]
    for stream_id, label in labels:
        found[stream_id] = (*found.get(stream_id, ()), label)
    return found
