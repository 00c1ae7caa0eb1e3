"""What the stream knows already: which rows of a chunk stand in earlier batches, and on which side.

Sides: TRAIN is training data, HELD the held-out rows of data batches, EVAL those of the anchor and of fixed eval sets.
Erased documents count too: what was erased must not come back with the next file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from orchestrator.ingest.normalise import Normal
from orchestrator.ingest.records import Kind
from orchestrator.ingest.sketches import SIMILAR, Signature, similarity, unpack
from orchestrator.ingest.split import Side
from storage.tables import Batch, Document, DocumentBand, DocumentSketch

TRAIN, HELD, EVAL = 1, 2, 4
_IDS_AT_ONCE = 500


class Match(NamedTuple):
    """How a row stands to earlier batches; ``cluster`` is that of its nearest kind, if any."""

    verdict: str
    side: Side = "free"
    cluster: str | None = None
    near: bool = False


@dataclass(frozen=True, kw_only=True)
class Known:
    """What was found for one chunk, by digest, by content, by cluster name and by row."""

    digests: dict[str, int]
    contents: dict[str, int]
    labels: dict[str, set[str]]
    clusters: dict[str, int]
    near: list[list[str]] = field(default_factory=list)


def look_up(
    session: Session,
    stream_id: str,
    chunk: Sequence[Normal],
    signatures: Sequence[Signature],
    bands: Sequence[list[int]],
) -> Known:
    """Everything earlier that concerns ``chunk``, in about thirty queries however long the history is."""
    digests = _sides(session, stream_id, Document.digest, [normal.digest for normal in chunk])
    contents, labels = _contents(session, stream_id, [normal.content_digest for normal in chunk])
    near = _near(session, stream_id, signatures, bands)
    names = {name for found in near for name in found} | {normal.group for normal in chunk if normal.group}
    clusters = _sides(session, stream_id, Document.cluster, sorted(names))
    return Known(digests=digests, contents=contents, labels=labels, clusters=clusters, near=near)


def judge(kind: Kind, normal: Normal, place: int, known: Known) -> Match:
    """What becomes of the row at ``place`` of its chunk: keep, duplicate, conflict or leaked."""
    exact = known.digests.get(normal.digest, 0)
    content = known.contents.get(normal.content_digest, 0)
    if kind == "fixed":
        return _judge_fixed(normal, place, known, exact | content)
    if exact & EVAL:
        return Match("leaked")
    if exact:
        return Match("duplicate")
    if normal.label is not None and known.labels.get(normal.content_digest, {normal.label}) != {normal.label}:
        return Match("conflict")
    if content & (HELD | EVAL):
        return Match("leaked")
    return _judge_near(normal, place, known)


def _judge_near(normal: Normal, place: int, known: Known) -> Match:
    names = known.near[place] + ([normal.group] if normal.group else [])
    sides = {name: _settled(known.clusters.get(name, 0)) for name in names}
    union = 0
    for sided in sides.values():
        union |= sided
    near = bool(known.near[place])
    if union & EVAL or union == TRAIN | HELD:
        return Match("leaked", near=near)
    side: Side = "train" if union & TRAIN else "held" if union & HELD else "free"
    cluster = min((name for name in known.near[place] if sides[name] == union), default=None)
    return Match("keep", side, cluster, near)


def _judge_fixed(normal: Normal, place: int, known: Known, sides: int) -> Match:
    """A fixed eval set keeps what no training has seen; rows held out elsewhere may be in it too."""
    names = known.near[place]
    for name in names:
        sides |= _settled(known.clusters.get(name, 0))
    if sides & TRAIN:
        return Match("leaked", near=bool(names))
    return Match("keep", "free", min(names, default=None), bool(names))


def _settled(sides: int) -> int:
    """A cluster on both sides (a batch that was all one cluster) binds nobody."""
    return 0 if sides & TRAIN and sides & (HELD | EVAL) else sides


def _bit(split: str, kind: str) -> int:
    if split == "train":
        return TRAIN
    return HELD if kind == "data" else EVAL


def _found(stream_id: str, *columns: Any) -> Select[Any]:
    query = select(*columns, Document.split, Batch.kind).join(Batch, Batch.id == Document.batch_id)
    return query.where(Document.stream_id == stream_id).distinct()


def _sides(session: Session, stream_id: str, column: Any, values: Sequence[str]) -> dict[str, int]:
    sides: dict[str, int] = defaultdict(int)
    for part in _parts(values):
        for value, split, kind in session.execute(_found(stream_id, column).where(column.in_(part))):
            sides[value] |= _bit(split, kind)
    return dict(sides)


def _contents(session: Session, stream_id: str, values: Sequence[str]) -> tuple[dict[str, int], dict[str, set[str]]]:
    sides: dict[str, int] = defaultdict(int)
    labels: dict[str, set[str]] = defaultdict(set)
    query = _found(stream_id, Document.content_digest, Document.label)
    for part in _parts(values):
        for content, label, split, kind in session.execute(query.where(Document.content_digest.in_(part))):
            sides[content] |= _bit(split, kind)
            if label is not None:
                labels[content].add(label)
    return dict(sides), dict(labels)


def _near(
    session: Session, stream_id: str, signatures: Sequence[Signature], bands: Sequence[list[int]]
) -> list[list[str]]:
    """Cluster names of the confirmed near-duplicates of each row."""
    candidates = _candidates(session, stream_id, bands)
    sketches = _sketches(session, sorted({document for found in candidates for document in found}))
    return [
        sorted({sketches[d][0] for d in found if d in sketches and similarity(sketches[d][1], signature) >= SIMILAR})
        for found, signature in zip(candidates, signatures, strict=True)
    ]


def _candidates(session: Session, stream_id: str, bands: Sequence[list[int]]) -> list[set[int]]:
    """Document ids that share a band, the first and the last of each: a crowded band must not cost more."""
    found: list[set[int]] = [set() for _ in bands]
    for band in range(len(bands[0]) if bands else 0):
        values = {row[band] for row in bands}
        query = (
            select(DocumentBand.value, func.min(DocumentBand.document_id), func.max(DocumentBand.document_id))
            .where(DocumentBand.stream_id == stream_id, DocumentBand.band == band, DocumentBand.value.in_(values))
            .group_by(DocumentBand.value)
        )
        shared = {value: {first, last} for value, first, last in session.execute(query)}
        for place, row in enumerate(bands):
            found[place] |= shared.get(row[band], set())
    return found


def _sketches(session: Session, documents: Sequence[int]) -> dict[int, tuple[str, Signature]]:
    found = {}
    for part in _parts(documents):
        query = (
            select(Document.id, Document.cluster, DocumentSketch.signature)
            .join(DocumentSketch, DocumentSketch.document_id == Document.id)
            .where(Document.id.in_(part))
        )
        for document, cluster, stored in session.execute(query):
            found[document] = (cluster, unpack(stored))
    return found


def _parts(values: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (values[start : start + _IDS_AT_ONCE] for start in range(0, len(values), _IDS_AT_ONCE))
