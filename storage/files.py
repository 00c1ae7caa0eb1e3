"""Files that are either whole and on disk, or not there: write beside, fsync, rename, fsync the folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20
WRITE_ATTEMPTS = 3
MAX_JSON_BYTES = 64 << 20


def fsync_dir(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace ``path`` so that a reader, or a power cut, finds the old bytes or the new ones.

    After a failed fsync the kernel may have dropped the pages, so the bytes are written to a new file, at most three
    times, and the same file is never synced again. ``mode`` is what the umask leaves of it.

    Raises:
        OSError: the disk did not take the bytes; the old file is still there.
    """
    for attempt in range(1, WRITE_ATTEMPTS + 1):
        try:
            _write_once(path, data, mode)
        except OSError:
            if attempt == WRITE_ATTEMPTS:
                raise
        else:
            return


def _write_once(path: Path, data: bytes, mode: int) -> None:
    beside = path.parent / f".{path.name[:64]}.{uuid.uuid4().hex}.tmp"
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        fsync_dir(path.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            beside.unlink()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in bounded memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, or larger than 64 MiB.
    """
    with path.open("rb") as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"{path} is larger than {MAX_JSON_BYTES} bytes; it is not one of our JSON files")
    return json.loads(data)


def write_json_atomic(path: Path, value: Any) -> None:
    """Write a value as JSON through :func:`write_atomic`; NaN and infinity are refused."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    write_atomic(path, text.encode() + b"\n")
