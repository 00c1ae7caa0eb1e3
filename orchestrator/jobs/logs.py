"""A job's log: its last words, and how it is kept from filling the disk."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

LOG = "job.log"
MAX_BYTES = 64 << 20
KEPT_BYTES = 8 << 20
TAIL_BYTES = 4 << 10
MAX_LINE = 500
BLOCK_BYTES = 4096
FALLOC_FL_KEEP_SIZE_PUNCH_HOLE = 3


def last_line(directory: Path) -> str:
    """The last printable line of the log, cut to 500 characters: by custom it says what went wrong."""
    try:
        with (directory / LOG).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    lines = ["".join(char for char in line if char.isprintable()).strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "").removeprefix("error: ")[:MAX_LINE]


def bound(directory: Path) -> bool:
    """Give the disk space of an overlong log's beginning back, under the running job's hands.

    What is left keeps its offsets, so a follower goes on reading; what was dropped reads as zero bytes.
    """
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
