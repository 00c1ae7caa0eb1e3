"""A job's log: read in pieces at stable offsets, and kept from filling the disk."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from orchestrator.app import App
from orchestrator.errors import NotFound

LOG = "job.log"
READ_BYTES = 256 << 10
MAX_BYTES = 64 << 20
KEPT_BYTES = 8 << 20
TAIL_BYTES = 4 << 10
MAX_LINE = 500
BLOCK_BYTES = 4096
FALLOC_FL_KEEP_SIZE_PUNCH_HOLE = 3


def read_log(app: App, job_id: int, attempt: int, offset: int) -> bytes:
    """At most 256 KiB of an attempt's log from ``offset``; empty at its end, so a follower asks again later.

    A negative offset counts from the end. Offsets stay what they are when the beginning of an overlong log is dropped;
    what was there reads as zero bytes, and :func:`first_offset` says where the rest begins.

    Raises:
        NotFound: this attempt never had a log, or it was cleaned up.
    """
    try:
        with _path(app, job_id, attempt).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size + offset) if offset < 0 else min(offset, size))
            return file.read(READ_BYTES)
    except FileNotFoundError:
        raise NotFound(
            f"job {job_id} has no log of attempt {attempt} yet; `rekindle job show {job_id}` tells why"
        ) from None


def first_offset(app: App, job_id: int, attempt: int) -> int:
    """Where the log begins: 0, or behind the part that was dropped because the log grew too long."""
    try:
        with _path(app, job_id, attempt).open("rb") as file:
            return os.lseek(file.fileno(), 0, os.SEEK_DATA)
    except OSError:
        return 0


def last_line(directory: Path) -> str:
    """The last printable line of the log, cut to 500 characters: by custom it says what went wrong."""
    try:
        with (directory / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    lines = ["".join(char for char in line if char.isprintable()).strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "")[:MAX_LINE]


def bound(directory: Path) -> bool:
    """Give the disk space of an overlong log's beginning back, under the running job's hands."""
    try:
        with (directory / LOG).open("rb+") as file:
            status = os.fstat(file.fileno())
            if status.st_blocks * 512 <= MAX_BYTES:
                return False
            dropped = (status.st_size - KEPT_BYTES) // BLOCK_BYTES * BLOCK_BYTES
            if not _punch(file.fileno(), dropped):
                # The job's own offset stays where it is: its next line makes the hole that could not be punched.
                os.ftruncate(file.fileno(), 0)
            return True
    except OSError:
        return False


def _punch(descriptor: int, length: int) -> bool:
    try:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    except AttributeError:
        return False
    size = ctypes.c_int64
    return int(fallocate(descriptor, FALLOC_FL_KEEP_SIZE_PUNCH_HOLE, size(0), size(length))) == 0


def _path(app: App, job_id: int, attempt: int) -> Path:
    return app.home.job_directory(job_id, attempt) / LOG
