"""What ingest hands around: rows as read, what became of a file, and the two ways a thing is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from pydantic import Field

from orchestrator.errors import RekindleError
from strategies.settings import Closed

if TYPE_CHECKING:
    from orchestrator.home import Home
    from storage.artifacts import ArtifactStore
    from storage.database import Database

Outcome = Literal["accepted", "copy", "refused"]
Kind = Literal["data", "anchor", "fixed"]

EXCERPT_CHARACTERS = 200


class Refused(RekindleError):  # noqa: N818 - says what happened, as the other errors do
    """The whole file is refused; nothing of it is kept."""

    code = "refused"
    http_status = 422


AD_HOC_PREFIX = "file:"
"""Begins the name of an eval set of a user's own file, which is measured on request and guards nothing."""


class IngestApp(Protocol):
    """What ingest needs of the app."""

    @property
    def home(self) -> Home: ...
    @property
    def database(self) -> Database: ...
    @property
    def store(self) -> ArtifactStore: ...


class Row(NamedTuple):
    """A readable row: where it stood, its columns, and its bytes as they came (None: a columnar file)."""

    line: int
    fields: dict[str, Any]
    raw: bytes | None = None


class Bad(NamedTuple):
    """A row that cannot be read: ``reason`` is one of few, ``detail`` is its own."""

    line: int
    reason: str
    detail: str
    excerpt: str


class IngestReport(Closed):
    """What became of one arrival. Rows read = documents + duplicates + leaked + quarantined."""

    outcome: Outcome
    name: str
    kind: Kind
    content_hash: str
    batch_id: int | None = None
    state: str | None = None
    documents: int = 0
    train: int = 0
    heldout: int = 0
    duplicates: int = 0
    near_duplicates: int = 0
    conflicts: int = 0
    leaked: int = 0
    quarantined: int = 0
    reasons: dict[str, int] = Field(default_factory=dict)
    reason: str | None = None


def escape(text: str, limit: int = EXCERPT_CHARACTERS) -> str:
    """``text`` on one line: control, format and unassigned characters as backslash escapes, cut at ``limit``."""
    head = text[: limit + 1]
    shown = head if head.isprintable() else "".join(map(_printable, head))
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "surrogatepass").decode()


def excerpt(raw: object) -> str:
    """The first characters of a row, safe to print."""
    if isinstance(raw, bytes):
        return escape(raw[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "backslashreplace"))
    if isinstance(raw, dict):
        cut = {str(key)[:50]: str(value)[:EXCERPT_CHARACTERS] for key, value in list(raw.items())[:10]}
        return escape(str(cut))
    return escape(str(raw))
