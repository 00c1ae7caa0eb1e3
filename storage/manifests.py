"""What SQL knows of the artifact store: its objects and manifests, and that they are in use again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from storage.artifacts import ManifestRecord, Stored
from storage.database import now
from storage.tables import Manifest, ManifestEntry, StoredObject

ROWS_AT_ONCE = 500
T = TypeVar("T")


def register(session: Session, manifest: ManifestRecord) -> None:
    """Write a manifest and its objects down; those that gc had marked are in use again."""
    patches = [(entry, one) for entry in manifest.entries for one in entry.patches]
    _use(
        session,
        {manifest.hash: manifest.stored_bytes}
        | {entry.object_hash: entry.bytes for entry in manifest.entries}
        | {one.object_hash: one.bytes for _, one in patches},
    )
    if session.get(Manifest, manifest.hash) is not None:
        return
    session.add(Manifest(hash=manifest.hash, bytes=manifest.bytes, created_at=now()))
    session.flush()
    rows = [(entry.kind, entry.path, entry.object_hash) for entry in manifest.entries]
    rows += [("patch", one.path(entry.path), one.object_hash) for entry, one in patches]
    for some in in_parts(rows):
        values = [
            {"manifest_hash": manifest.hash, "kind": kind, "path": path, "object_hash": name}
            for kind, path, name in some
        ]
        session.execute(insert(ManifestEntry), values)


def register_object(session: Session, stored: Stored) -> None:
    """Write one object down; if gc had marked it, it is in use again."""
    _use(session, {stored.hash: stored.bytes})


def is_available(session: Session, manifest_hash: str) -> bool:
    """Whether the manifest is known and gc has deleted none of its bytes."""
    return bool(available(session, [manifest_hash]))


def tensors(session: Session, manifest_hash: str) -> set[str]:
    """Names of the tensors of a model."""
    found = select(ManifestEntry.path).where(
        ManifestEntry.manifest_hash == manifest_hash, ManifestEntry.kind == "tensor"
    )
    return set(session.scalars(found))


def available(session: Session, hashes: Iterable[str]) -> set[str]:
    """Those of the manifests that are known and of which gc has deleted no byte."""
    found: set[str] = set()
    for part in in_parts(sorted(set(hashes))):
        gone = select(StoredObject.hash).where(StoredObject.deleted_at.is_not(None))
        broken = select(ManifestEntry.manifest_hash).where(
            ManifestEntry.manifest_hash.in_(part), ManifestEntry.object_hash.in_(gone)
        )
        whole = select(Manifest.hash).where(
            Manifest.hash.in_(part), Manifest.hash.not_in(gone), Manifest.hash.not_in(broken)
        )
        found |= set(session.scalars(whole))
    return found


def new_share(session: Session, hashes: Iterable[str], before: Iterable[str]) -> float:
    """Bytes of some manifests' objects, each counted once, that no manifest of ``before`` has, as a share of the bytes
    of their folders."""
    ours, theirs = (_objects(session, one) for one in (hashes, before))
    total = sum(size for (kind, _), size in ours.items() if kind != "patch")
    known = {name for _, name in theirs}
    return sum(size for (_, name), size in ours.items() if name not in known) / total if total else 0.0


def _objects(session: Session, hashes: Iterable[str]) -> dict[tuple[str, str], int]:
    query = select(ManifestEntry.kind, StoredObject.hash, StoredObject.bytes).join_from(
        StoredObject, ManifestEntry, ManifestEntry.object_hash == StoredObject.hash
    )
    rows = session.execute(query.where(ManifestEntry.manifest_hash.in_(sorted(set(hashes)))).distinct())
    return {(row.kind, row.hash): row.bytes for row in rows}


def in_parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Parts small enough for one statement's parameters."""
    for start in range(0, len(items), ROWS_AT_ONCE):
        yield items[start : start + ROWS_AT_ONCE]


def _use(session: Session, sizes: dict[str, int]) -> None:
    for hashes in in_parts(sorted(sizes)):
        known = set(session.scalars(select(StoredObject.hash).where(StoredObject.hash.in_(hashes))))
        session.execute(
            update(StoredObject).where(StoredObject.hash.in_(known)).values(marked_at=None, deleted_at=None),
            execution_options={"synchronize_session": "fetch"},
        )
        _insert_objects(session, [(name, sizes[name]) for name in hashes if name not in known])


def _insert_objects(session: Session, objects: Iterable[tuple[str, int]]) -> None:
    created_at = now()
    rows = [{"hash": name, "bytes": size, "created_at": created_at} for name, size in objects]
    if rows:
        session.execute(insert(StoredObject), rows)
