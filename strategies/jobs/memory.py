"""Memory of a job process, which lives for one job: what a step frees, the next one takes again."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's ``mallopt``."""
KEPT_BLOCK = 2**30
"""Bytes up to which a block comes from the heap."""
KEPT_HEAP = 2**31 - 1
"""Bytes that may lie free at the heap's end; the greatest ``int``."""


def keep_freed() -> bool:
    """Keep freed blocks for the next step, where the C library is glibc and lets one; whether it does.

    Otherwise each step gives the activations of its batch back to the system and takes them anew, a page fault a page.
    Kept, a step of a small model takes an eighth less time on the CPU, and the job an eighth more memory at its peak.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # An old glibc refuses a large block's threshold; keeping the heap without it would cost more than it spares.
    return mallopt is not None and bool(mallopt(MMAP_THRESHOLD, KEPT_BLOCK) and mallopt(TRIM_THRESHOLD, KEPT_HEAP))
