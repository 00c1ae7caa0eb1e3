"""Pushed files: streamed to the spool with a cap, then taken in by a process of their own."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated

from anyio import CapacityLimiter, fail_after, to_thread
from fastapi import Query, Request

from orchestrator.app import App
from orchestrator.errors import BadInput, TooLarge, Unavailable
from orchestrator.ingest.spool import disk_trouble
from orchestrator.rest.depends import Actor, Rekindle
from orchestrator.rest.limits import STALL_S
from orchestrator.service.commands import batches
from orchestrator.service.records import IngestRecord
from orchestrator.service.views import streams as views

UPLOADS_AT_ONCE = 2
FREE_BYTES = 200_000_000
"""What an upload must leave free on the spool's disk."""
ROOM_CHECKED_BYTES = 16 * 1024 * 1024
"""The disk is looked at again whenever so much has come."""
_LIMITER_KEY = "upload_limiter"


async def push_batch(
    rekindle: Rekindle,
    actor: Actor,
    request: Request,
    name: str,
    filename: Annotated[str, Query(min_length=1, max_length=200, description="its ending says how the body is read")],
) -> IngestRecord:
    """Push one file as a batch: the body is the file (JSONL, Parquet, CSV or text, plain or gz or zst)."""
    _check_filename(filename)
    limit = await to_thread.run_sync(views.upload_limit, rekindle, name)
    length = int(request.headers.get("content-length", "0"))
    if length > limit:
        raise _too_large(filename, limit)
    with _spooled(rekindle, filename) as path:
        with disk_trouble(path.parent.parent):
            await _receive(request.stream(), path, length=length, limit=limit)
        return await to_thread.run_sync(
            lambda: batches.ingest_file(rekindle, name, path=path, name=filename, actor=actor),
            limiter=_limiter(request),
        )


def _check_filename(filename: str) -> None:
    if filename != Path(filename).name or filename in (".", "..") or not filename.isprintable():
        raise BadInput(f"{filename!r} is no plain file name; leave out folders and control characters")


@contextlib.contextmanager
def _spooled(app: App, filename: str) -> Iterator[Path]:
    """A place in the spool that goes with everything in it."""
    with disk_trouble(app.home.spool):
        folder = Path(tempfile.mkdtemp(prefix="push-", dir=app.home.spool))
    try:
        yield folder / filename
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def _receive(body: AsyncIterator[bytes], path: Path, *, length: int, limit: int) -> None:
    """``length`` is what was announced, 0 where nothing was."""
    taken = unchecked = 0
    _check_room(path.parent, coming=length)
    with path.open("wb") as file:
        while (piece := await _next(body)) is not None:
            taken, unchecked = taken + len(piece), unchecked + len(piece)
            if taken > limit:
                raise _too_large(path.name, limit)
            if unchecked > ROOM_CHECKED_BYTES:
                _check_room(path.parent, coming=max(0, length - taken))
                unchecked = 0
            await to_thread.run_sync(file.write, piece)


async def _next(body: AsyncIterator[bytes]) -> bytes | None:
    try:
        with fail_after(STALL_S):
            return await anext(body, None)
    except TimeoutError as error:
        raise BadInput(f"nothing came for {STALL_S} s; push the file again") from error


def _check_room(folder: Path, *, coming: int) -> None:
    missing = coming + FREE_BYTES - shutil.disk_usage(folder).free
    if missing > 0:
        raise Unavailable(
            f"the daemon's disk lacks {missing} bytes; free space at {folder.parent} (`rekindle gc` helps), push again"
        )


def _too_large(filename: str, limit: int) -> TooLarge:
    return TooLarge(
        f"{filename} is larger than limits.max_file_bytes ({limit}); split it, or raise the limit with stream set"
    )


def _limiter(request: Request) -> CapacityLimiter:
    """Few uploads are taken in at once, so that they cannot take all threads."""
    state = request.app.state
    if not hasattr(state, _LIMITER_KEY):
        setattr(state, _LIMITER_KEY, CapacityLimiter(UPLOADS_AT_ONCE))
    found = getattr(state, _LIMITER_KEY)
    assert isinstance(found, CapacityLimiter)
    return found
