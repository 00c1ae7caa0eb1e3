"""Files brought into the home before they are read: what is hashed, read and trained on are the same bytes.

A work folder belongs to one ingest, which holds a lock in it; a folder whose lock is free was left by a process that
died, and is removed by the next ingest.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import sqlite3
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from orchestrator.errors import BadInput, Unavailable
from orchestrator.ingest.records import Refused, escape

BLOCK_BYTES = 1 << 20
LOCK_POLL_S = 0.05


FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def disk_trouble(folder: Path) -> Iterator[None]:
    """Say in one line that the disk is full, or that ``folder`` cannot be used.

    Raises:
        Unavailable: either of the two.
    """
    try:
        yield
    except OSError as error:
        # Damaged files make libraries raise OSError, too, but without a number.
        if error.errno is None:
            raise
        raise Unavailable(_trouble(folder, error)) from error
    except sqlite3.OperationalError as error:
        raise Unavailable(f"{folder} cannot be written ({error}); nothing was kept, free space, try again") from error


def _trouble(folder: Path, error: OSError) -> str:
    if error.errno in FULL:
        return f"the disk is full; nothing was kept, free space at {folder} (`rekindle gc` helps) and try again"
    return f"{folder} cannot be used ({error.strerror}); nothing was kept, see to that disk and try again"


class Fetched(NamedTuple):
    """A file in the spool: the name it came under, where it lies now, its sha256 and its size."""

    name: str
    path: Path
    hash: str
    bytes: int


class StillGrowing(Refused):
    """The file changed while it was copied; it is tried again later."""


@contextlib.contextmanager
def work_folder(spool: Path) -> Iterator[Path]:
    """A private folder for one ingest, gone at its end."""
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = uuid.uuid4().hex
    fresh, folder = spool / f".new-{name}", spool / f"ingest-{name}"
    fresh.mkdir(mode=0o700)
    lock = os.open(fresh / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Only now can a sweep see it: it never meets a living folder whose lock is free.
        fresh.rename(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(spool: Path) -> int:
    """Remove the work folders of dead processes; returns how many."""
    return sum(_remove_if_dead(folder) for folder in spool.glob("ingest-*"))


def _remove_if_dead(folder: Path) -> bool:
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


@contextlib.contextmanager
def stream_lock(spool: Path, stream_id: str, timeout_s: float) -> Iterator[None]:
    """One ingest a stream at a time; freed by the kernel if its process dies.

    Raises:
        Unavailable: another one held it for ``timeout_s``.
    """
    lock = os.open(spool / f".{stream_id}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _acquire(lock, timeout_s)
        yield
    finally:
        os.close(lock)


def _acquire(lock: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"another ingest of this stream runs since {timeout_s:.0f} s; try again later"
                ) from None
            time.sleep(LOCK_POLL_S)
        else:
            return


def fetch_local(path: Path, folder: Path, *, name: str, max_bytes: int) -> Fetched:
    """Copy a regular file into ``folder`` through one descriptor, hashing what is written.

    Raises:
        BadInput: it is a link, no regular file, or cannot be read.
        StillGrowing: it changed meanwhile.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        source = os.fdopen(descriptor, "rb")
    except IsADirectoryError:
        os.close(descriptor)
        raise BadInput(f"cannot read {escape(str(path))}: a folder; give the files in it") from None
    except OSError as error:
        why = "a symbolic link; give the file itself" if error.errno == errno.ELOOP else error.strerror
        raise BadInput(f"cannot read {escape(str(path))}: {why}") from None
    with source:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise BadInput(f"cannot read {escape(str(path))}: not a regular file")
        fetched = fetch_stream(source, folder, name=name, max_bytes=max_bytes)
        after = os.fstat(descriptor)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or fetched.bytes != after.st_size:
        raise StillGrowing(f"{escape(name)} changed while it was read; wait until it is written and send it again")
    return fetched


def fetch_stream(source: BinaryIO, folder: Path, *, name: str, max_bytes: int) -> Fetched:
    """Copy an open stream into ``folder``, hashing what is written.

    Raises:
        Refused: it has more than ``max_bytes``.
    """
    target = folder / f"source-{uuid.uuid4().hex}"
    digest, size = hashlib.sha256(), 0
    with target.open("xb") as file:
        while block := source.read(BLOCK_BYTES):
            size += len(block)
            if size > max_bytes:
                raise Refused(f"{escape(name)} has more than limits.max_file_bytes = {max_bytes} bytes; split it")
            digest.update(block)
            file.write(block)
    return Fetched(name, target, digest.hexdigest(), size)
