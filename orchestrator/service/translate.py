"""Errors of storage and strategies become ours in one place, with the cause kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from orchestrator.errors import BadInput, Conflict, NotFound, RekindleError, Unavailable
from storage import errors as storage
from strategies.errors import StrategyError

KINDS: tuple[tuple[type[Exception], type[RekindleError]], ...] = (
    (storage.LeaseLost, Unavailable),
    (storage.StaleRecord, Conflict),
    (storage.IllegalMove, Conflict),
    (storage.DatabaseUnavailable, Unavailable),
    (storage.ArtifactMissing, NotFound),
    (storage.BackupRefused, Conflict),
    (storage.TokenRefused, Conflict),
    (StrategyError, BadInput),
)


def ours(error: Exception) -> RekindleError:
    """The same error under our own base class; the first kind that fits."""
    for theirs, kind in KINDS:
        if isinstance(error, theirs):
            return kind(str(error))
    return RekindleError(str(error))


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Let nothing but :class:`RekindleError` out.

    Raises:
        RekindleError: what storage or the strategies said.
    """
    try:
        yield
    except (storage.StorageError, StrategyError) as error:
        raise ours(error) from error
