"""What the lifecycle may ask of the supervisor; it decides, the supervisor does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

StopReason = Literal["cancelled", "timeout", "stalled"]


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """Base of all instructions; those given together are carried out in order, their SQL in one transaction."""


@dataclass(frozen=True, kw_only=True)
class Wait(Instruction):
    """Nothing to do now."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Submit(Instruction):
    """Make a new attempt with the slots granted: queued to submitted."""


@dataclass(frozen=True, kw_only=True)
class Start(Instruction):
    """Start the attempt's process in its directory, which is ready."""


@dataclass(frozen=True, kw_only=True)
class Void(Instruction):
    """Make sure that the attempt's process can never start; where it has started, what follows is not done."""


@dataclass(frozen=True, kw_only=True)
class MarkRunning(Instruction):
    """The process is there: submitted to running, with its identity."""


@dataclass(frozen=True, kw_only=True)
class Adopt(Instruction):
    """Tell the job that a daemon lives, and take over its progress."""


@dataclass(frozen=True, kw_only=True)
class RequestStop(Instruction):
    """Ask the job to write a checkpoint and end."""

    reason: StopReason


@dataclass(frozen=True, kw_only=True)
class Terminate(Instruction):
    """SIGTERM: the job did not answer the request."""


@dataclass(frozen=True, kw_only=True)
class Kill(Instruction):
    """SIGKILL to the whole process group: the job did not answer SIGTERM."""


@dataclass(frozen=True, kw_only=True)
class Import(Instruction):
    """Start the process that stores what the job left."""


@dataclass(frozen=True, kw_only=True)
class StopImport(Instruction):
    """Kill the process that stores what the job left."""


@dataclass(frozen=True, kw_only=True)
class Succeed(Instruction):
    """Everything is stored: register it and end the job."""


@dataclass(frozen=True, kw_only=True)
class Fail(Instruction):
    """The attempt failed; final unless :class:`Requeue` follows."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class MarkLost(Instruction):
    """The attempt ended without a verdict on the job; :class:`Requeue` always follows."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Cancel(Instruction):
    """The job ends cancelled; only a request to try it again brings it back."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Requeue(Instruction):
    """Back to queued, not to start before a time."""

    not_before: datetime
