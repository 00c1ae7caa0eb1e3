"""The states of every record and the legal moves between them, in one table."""

from __future__ import annotations

from typing import Literal, get_args

STREAM_STATES = ("registering", "active", "paused", "failed", "archived")
BATCH_STATES = ("pending", "trained", "held", "erased")
TRIGGER_STATES = ("active", "paused", "removed")
DECISION_STATES = ("measuring", "decided", "closed")
DecisionResult = Literal["promoted", "refused", "inconclusive", "failed", "cancelled", "stale"]
"""How a decision ended; ``promoted``: what it made went live, whether the gate passed it or not."""
DECISION_RESULTS: tuple[DecisionResult, ...] = get_args(DecisionResult)
JUDGED: tuple[DecisionResult, ...] = ("promoted", "refused", "inconclusive")
"""Of decisions whose plan made a version that was judged."""
PLAN_STATES = ("open", "succeeded", "failed", "cancelled", "stale")
JobKind = Literal["measure", "train", "proxy", "fit", "merge", "probe", "evaluate"]
"""What a job does: the same word in its row, in what it is told and in what it answers."""
JOB_KINDS: tuple[JobKind, ...] = get_args(JobKind)
JOB_STATES = ("queued", "submitted", "running", "succeeded", "failed", "lost", "cancelled")
JOB_UNFINISHED = ("queued", "submitted", "running")
JOB_GAVE_UP = ("failed", "cancelled")
"""Tried again only when somebody asks for it."""
JOB_ENDED = ("succeeded", *JOB_GAVE_UP)
ATTEMPT_ENDED = (*JOB_ENDED, "lost")
"""``lost`` is an end of attempts alone: the transaction that loses a job's attempt puts the job back into the queue, so
that no job is ever found lost and no group of a job's states has it."""
VERSION_STATES = ("candidate", "evaluated", "live", "retired", "rejected")

MOVES: dict[str, dict[str, tuple[str, ...]]] = {
    "stream": {
        "registering": ("active", "failed", "archived"),
        "active": ("paused", "failed", "archived"),
        "paused": ("active", "failed", "archived"),
        "failed": ("active", "registering", "archived"),
        "archived": (),
    },
    "batch": {
        "pending": ("trained", "held", "erased"),
        "trained": ("pending", "held", "erased"),
        "held": ("pending", "trained", "erased"),
        "erased": (),
    },
    "trigger": {
        "active": ("paused", "removed"),
        "paused": ("active", "removed"),
        "removed": ("active",),
    },
    "decision": {"measuring": ("decided", "closed"), "decided": ("closed",), "closed": ()},
    "plan": {
        "open": ("succeeded", "failed", "cancelled", "stale"),
        "succeeded": (), "failed": (), "cancelled": (), "stale": (),
    },
    "job": {
        "queued": ("submitted", "cancelled"),
        "submitted": ("running", "succeeded", "failed", "lost", "cancelled"),
        "running": ("succeeded", "failed", "lost", "cancelled"),
        "failed": ("queued",),
        "lost": ("queued",),
        "cancelled": ("queued",),
        "succeeded": (),
    },
    "version": {
        "candidate": ("evaluated", "rejected"),
        "evaluated": ("live", "rejected"),
        "live": ("retired",),
        "retired": ("live",),
        "rejected": ("live",),
    },
}  # fmt: skip


def is_legal(record: str, start: str, finish: str) -> bool:
    """Whether ``record`` may move from ``start`` to ``finish``."""
    return finish in MOVES[record].get(start, ())
