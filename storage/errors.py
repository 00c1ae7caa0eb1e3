"""What can go wrong in storage; every message is one line that says what is wrong and what to do."""

# ruff: noqa: N818 - the names say what went wrong; the base class already says that they are errors

from __future__ import annotations


class StorageError(Exception):
    """Base of all errors of this package."""


class DatabaseUnavailable(StorageError):
    """The database cannot be reached, is locked for too long, or its disk is full; trying again later may help."""


class SchemaTooNew(StorageError):
    """The database was written by a newer Rekindle."""


class SchemaTooOld(StorageError):
    """The database must be upgraded before this Rekindle can use it."""


class IllegalMove(StorageError):
    """The table of moves does not allow this one."""

    def __init__(self, *, subject: str, subject_id: int | str, start: str, finish: str) -> None:
        super().__init__(
            f"{subject} {subject_id} cannot move from {start} to {finish}; look at its present state first"
        )
        self.subject = subject
        self.subject_id = subject_id
        self.start = start
        self.finish = finish


class StaleRecord(StorageError):
    """Somebody else moved the record first; read it again."""


class LeaseLost(StaleRecord):
    """This process no longer leads; it must stop writing."""


class LeaseHeld(StorageError):
    """Another process leads."""


class ArtifactMissing(StorageError):
    """An object or manifest is not in the store."""


class ArtifactCorrupt(StorageError):
    """Stored bytes are not what their name says."""


class ArtifactRefused(StorageError):
    """A file or folder cannot be stored: unsafe, malformed or empty."""


class ArtifactWriteFailed(StorageError):
    """The disk did not take the bytes; nothing was stored."""


class BackupRefused(StorageError):
    """The backup cannot be written there."""


class TokenRefused(StorageError):
    """The token cannot be made or revoked."""
