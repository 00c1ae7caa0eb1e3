"""The life of a job as a pure function: its record, what is seen of its newest attempt, and the time, to instructions.

A job is started again only on positive evidence that its last process is gone: its exit code, or its lease (the
heartbeat) expired and its process identity no longer there; on another host, where no process can be seen, a lease that
has been silent for longer than an orphan lives, and an older leader's epoch. ``lost`` is never final: an attempt that
vanishes when none is left ends as failed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from orchestrator.jobs.instructions import (
    Adopt,
    Cancel,
    Fail,
    Import,
    Instruction,
    Kill,
    MarkLost,
    MarkRunning,
    RequestStop,
    Requeue,
    Start,
    StopImport,
    StopReason,
    Submit,
    Succeed,
    Terminate,
    Void,
    Wait,
)
from strategies.contract import EXIT_CANCELLED, EXIT_REFUSED

Instructions = tuple[Instruction, ...]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long to wait for what, in seconds, and how often to try."""

    lease_s: float = 10.0
    """A heartbeat is replaced every two seconds; silent this long, and the process gone, the attempt is over."""
    stall_s: float = 300.0
    """A living process that is silent this long hangs and is stopped."""
    remote_lease_s: float = 660.0
    """On another host: longer than a job that nobody adopts lives (``JobSpec.orphan_after_s``)."""
    cancel_grace_s: float = 120.0
    """Time to write a checkpoint before SIGTERM."""
    terminate_grace_s: float = 30.0
    """Time between SIGTERM and SIGKILL."""
    import_s: float = 3600.0
    """Wall-clock limit of one import."""
    imports: int = 3
    free_requeues: int = 5
    """Ends that are nobody's failure (a checkpoint after SIGTERM, a start that never happened) before they count."""
    backoff_s: float = 5.0
    backoff_factor: float = 8.0
    backoff_cap_s: float = 1800.0
    """5 s, 40 s, 320 s, then half an hour: at most five attempts in the first hour, two an hour thereafter."""


@dataclass(frozen=True, kw_only=True)
class AttemptRecord:
    """What SQL says of the newest attempt."""

    number: int
    epoch: int
    local: bool
    """Whether it runs on this host, so that its process can be seen."""


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """What SQL says of a job."""

    id: int
    state: str
    timeout_s: float
    max_attempts: int
    failures: int = 0
    """Attempts before the newest that count as failures."""
    yields: int = 0
    """Attempts before the newest that ended without being anybody's failure."""
    cancel_requested: bool = False
    cancel_reason: str = "cancelled on request"
    not_before: datetime | None = None
    attempt: AttemptRecord | None = None


@dataclass(frozen=True, kw_only=True)
class Imported:
    """How far the storing of the result has come."""

    state: Literal["none", "running", "done", "failed", "refused"] = "none"
    tries: int = 0
    running_s: float = 0.0
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What the supervisor sees at one instant."""

    epoch: int
    needs: Literal["met", "waiting", "broken"] = "met"
    needs_reason: str = ""
    granted: bool = False
    """Queued: slots are free for it now."""
    impossible: str = ""
    """Queued: why no slots can ever be granted."""
    start: Literal["preparing", "prepared", "failed", "unknown"] = "unknown"
    """Submitted: how far the making of its directory is; unknown after another daemon began it."""
    start_error: str = ""
    process: Literal["none", "alive", "gone", "unseen"] = "none"
    """none: never seen to start; unseen: on another host."""
    claimed: bool = False
    """Unseen: a process has started in the attempt's directory, by its own account."""
    exit_code: int | None = None
    error: str = ""
    """Last line of the log."""
    heartbeat_age_s: float = 0.0
    running_s: float = 0.0
    result: bool = False
    imported: Imported = field(default_factory=Imported)
    stop: StopReason | None = None
    stop_age_s: float = 0.0
    terminate_age_s: float | None = None


def decide(record: JobRecord, seen: Observation, now: datetime, limits: Limits) -> Instructions:
    """What to do for one job now; an unknown state is a programming error."""
    return _STATES[record.state](record, seen, now, limits)


def is_ready(record: JobRecord, seen: Observation, now: datetime, limits: Limits) -> bool:
    """Whether a queued job waits for slots alone."""
    return seen.needs == "met" and not record.cancel_requested and not _is_early(record, now, limits)


def backoff(record: JobRecord, failures: int, limits: Limits) -> timedelta:
    """Exponential delay after the n-th failure with up to a quarter of jitter, fixed for a job and attempt."""
    attempt = record.attempt.number if record.attempt else 0
    draw = hashlib.sha256(f"{record.id}:{attempt}".encode()).digest()
    jitter = 1 + int.from_bytes(draw[:4], "big") / 2**34
    exponent = min(max(failures, 1) - 1, 16)
    return timedelta(seconds=min(limits.backoff_s * limits.backoff_factor**exponent, limits.backoff_cap_s) * jitter)


def _is_early(record: JobRecord, now: datetime, limits: Limits) -> bool:
    """A time further off than any delay was set before the clock was put back, and no longer counts."""
    if record.not_before is None:
        return False
    return now < record.not_before <= now + timedelta(seconds=2 * limits.backoff_cap_s)


def _queued(record: JobRecord, seen: Observation, now: datetime, limits: Limits) -> Instructions:
    if record.cancel_requested:
        return (Cancel(reason=record.cancel_reason),)
    if seen.needs == "broken":
        return (Cancel(reason=seen.needs_reason),)
    if seen.impossible:
        return (Cancel(reason=seen.impossible),)
    if not is_ready(record, seen, now, limits):
        return (Wait(reason=seen.needs_reason or "waits before the next attempt"),)
    return (Submit(),) if seen.granted else (Wait(reason="waits for free slots"),)


def _submitted(record: JobRecord, seen: Observation, now: datetime, limits: Limits) -> Instructions:
    if seen.process in ("alive", "gone"):
        return (MarkRunning(),)
    if seen.process == "unseen":
        return _unseen(record, seen, now, limits)
    return _not_started(record, seen, now, limits)


def _not_started(record: JobRecord, seen: Observation, now: datetime, limits: Limits) -> Instructions:
    if record.cancel_requested:
        return (Void(), Cancel(reason=record.cancel_reason))
    if seen.start == "preparing":
        return (Wait(reason="its directory is being made"),)
    if seen.start == "prepared":
        return (Start(),)
    if seen.start == "failed":
        return (Void(), *_count(record, seen.start_error, now, limits))
    return (Void(), *_free(record, "the daemon ended before the process started", now, limits))


def _running(record: JobRecord, seen: Observation, now: datetime, limits: Limits) -> Instructions:
    if seen.process == "unseen":
        return _unseen(record, seen, now, limits)
    if seen.process == "alive":
        return _alive(record, seen, limits)
    return _ended(record, seen, now, limits)


def _final(_record: JobRecord, _seen: Observation, _now: datetime, _limits: Limits) -> Instructions:
    return ()


_STATES: dict[str, Callable[[JobRecord, Observation, datetime, Limits], Instructions]] = {
    "queued": _queued,
    "submitted": _submitted,
    "running": _running,
    "succeeded": _final,
    "failed": _final,
    "lost": _final,
    "cancelled": _final,
}


def _alive(record: JobRecord, seen: Observation, limits: Limits) -> Instructions:
    reason = seen.stop or _stop_reason(record, seen, limits)
    if reason is None:
        return (Adopt(),)
    if seen.stop is None:
        return (RequestStop(reason=reason),)
    if seen.stop_age_s < limits.cancel_grace_s:
        return (Adopt(),)
    if seen.terminate_age_s is None:
        return (Terminate(),)
    return (Kill(),) if seen.terminate_age_s >= limits.terminate_grace_s else (Wait(reason="was sent SIGTERM"),)


def _stop_reason(record: JobRecord, seen: Observation, limits: Limits) -> StopReason | None:
    if record.cancel_requested:
        return "cancelled"
    if seen.running_s > record.timeout_s:
        return "timeout"
    return "stalled" if seen.heartbeat_age_s >= limits.stall_s else None


def _ended(record: JobRecord, seen: Observation, now: datetime, limits: Limits) -> Instructions:
    if record.cancel_requested:
        return _cancel_ended(record, seen)
    if seen.exit_code == 0 or (seen.exit_code is None and seen.result):
        return _import(record, seen, now, limits)
    if seen.stop == "timeout":
        return (Fail(reason=f"ran longer than its limit of {record.timeout_s:.0f} s; raise budget.max_hours"),)
    if seen.exit_code is None:
        return _vanished(record, seen, now, limits)
    return _exited(record, seen, now, limits)


def _exited(record: JobRecord, seen: Observation, now: datetime, limits: Limits) -> Instructions:
    if seen.exit_code == EXIT_REFUSED:
        return (Fail(reason=_told("refused its input", seen)),)
    if seen.exit_code == EXIT_CANCELLED and seen.stop is None:
        return _free(record, "stopped early with a checkpoint", now, limits)
    return _count(record, _told(_cause(seen), seen), now, limits)


def _cancel_ended(record: JobRecord, seen: Observation) -> Instructions:
    cancel = Cancel(reason=record.cancel_reason)
    return (StopImport(), cancel) if seen.imported.state == "running" else (cancel,)


def _vanished(record: JobRecord, seen: Observation, now: datetime, limits: Limits) -> Instructions:
    if seen.heartbeat_age_s < limits.lease_s:
        return (Wait(reason="its process is gone, its lease not yet expired"),)
    return _count(record, _told("its process vanished", seen), now, limits, lost=True)


def _unseen(record: JobRecord, seen: Observation, now: datetime, limits: Limits) -> Instructions:
    """On another host only files tell: the heartbeat, the result, the request to stop."""
    expired = seen.heartbeat_age_s >= limits.remote_lease_s
    if expired and record.attempt is not None and record.attempt.epoch < seen.epoch:
        return _silent(record, seen, now, limits)
    reason = _stop_reason(record, seen, limits)
    if reason in ("cancelled", "timeout") and seen.stop is None:
        return (RequestStop(reason=reason),)
    return (Adopt(),)


def _silent(record: JobRecord, seen: Observation, now: datetime, limits: Limits) -> Instructions:
    first = () if seen.claimed else (Void(),)
    if record.cancel_requested:
        return (*first, *_cancel_ended(record, seen))
    if record.state == "running" and seen.result:
        return _import(record, seen, now, limits)
    return (*first, *_count(record, _told("its host is silent", seen), now, limits, lost=True))


def _import(record: JobRecord, seen: Observation, now: datetime, limits: Limits) -> Instructions:
    if not seen.result:
        return _count(record, "ended with exit code 0 but left no result.json", now, limits)
    imported = seen.imported
    if imported.state == "done":
        return (Succeed(),)
    if imported.state == "running":
        late = imported.running_s > limits.import_s
        return (StopImport(),) if late else (Wait(reason="its result is being stored"),)
    if imported.state == "refused" or imported.tries >= limits.imports:
        return _count(record, f"its result could not be stored: {imported.error}", now, limits)
    return (Import(),)


def _count(record: JobRecord, reason: str, now: datetime, limits: Limits, *, lost: bool = False) -> Instructions:
    """An end that counts as a failure."""
    failures = record.failures + max(0, record.yields - limits.free_requeues) + 1
    if failures >= record.max_attempts:
        return (Fail(reason=reason),)
    again = Requeue(not_before=now + backoff(record, failures, limits))
    return (MarkLost(reason=reason) if lost else Fail(reason=reason), again)


def _free(record: JobRecord, reason: str, now: datetime, limits: Limits) -> Instructions:
    """An end that is nobody's failure, unless it happens again and again."""
    if record.yields >= limits.free_requeues:
        return _count(record, f"{reason}, {record.yields + 1} times", now, limits, lost=True)
    return (MarkLost(reason=reason), Requeue(not_before=now + backoff(record, 1, limits)))


def _cause(seen: Observation) -> str:
    if seen.stop == "stalled":
        return "hung without a heartbeat and was stopped"
    code = seen.exit_code or 0
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _told(what: str, seen: Observation) -> str:
    return f"{what}: {seen.error}" if seen.error else what
