"""The same work for every stream, decision or trigger, where one's failure must not keep it from the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from storage.errors import DatabaseUnavailable, LeaseLost

Subject = TypeVar("Subject")


def each(work: Callable[[Subject], bool], subjects: Iterable[Subject]) -> bool:
    """Whether the work changed something for any of the subjects.

    Raises:
        Exception: the first failure, once all others had their turn; at once where none could go on.
    """
    changed = False
    failed: Exception | None = None
    for one in subjects:
        try:
            changed |= work(one)
        except (LeaseLost, DatabaseUnavailable):
            raise
        except Exception as error:  # whatever is wrong with one stream's data or settings
            failed = failed or error
    if failed is not None:
        raise failed
    return changed
