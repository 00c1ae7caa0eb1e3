"""Processes by their identity: found again, and sent signals that can only reach the one that is meant."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from orchestrator.jobs.executors.contract import Handle
from strategies.processes import Process, boot_id, look

PIDFD_SIGNAL_PROCESS_GROUP = 4
"""Linux 6.9: the pidfd names the whole process group."""


def handle_of(pid: int) -> Handle | None:
    """The identity of a process that is there now."""
    found = look(pid)
    return Handle(boot_id=boot_id(), pid=pid, started=found.started) if found else None


def find(handle: Handle) -> Process | None:
    """The process that is meant, alive or a zombie; None if it is gone or its pid belongs to another."""
    if handle.boot_id != boot_id():
        return None
    found = look(handle.pid)
    return found if found and found.started == handle.started else None


def running_s(handle: Handle) -> float:
    """Seconds since the process started, whatever the wall clock did meanwhile."""
    if Path("/proc/self/stat").exists():
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - handle.started / os.sysconf("SC_CLK_TCK"))
    return max(0.0, time.time() - handle.started / 1000)


def send(handle: Handle, number: signal.Signals, *, group: bool = False) -> bool:
    """Signal the process that is meant (and its group); False if it is gone."""
    if not hasattr(os, "pidfd_open"):
        return _send_by_pid(handle, number, group=group)
    try:
        descriptor = os.pidfd_open(handle.pid)
    except OSError:
        return False
    try:
        # The pidfd was opened before this look: if the identity is right now, the pidfd names the right process.
        found = find(handle)
        if found is None or found.zombie:
            return False
        return _send_by_pidfd(descriptor, number, group=group)
    finally:
        os.close(descriptor)


def _send_by_pidfd(descriptor: int, number: signal.Signals, *, group: bool) -> bool:
    try:
        if group and _send_to_group(descriptor, number):
            return True
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    return True


def _send_to_group(descriptor: int, number: signal.Signals) -> bool:
    try:
        signal.pidfd_send_signal(descriptor, number, None, PIDFD_SIGNAL_PROCESS_GROUP)
    except OSError:
        # An older kernel: the leader alone can be named safely.
        return False
    return True


def _send_by_pid(handle: Handle, number: signal.Signals, *, group: bool) -> bool:
    found = find(handle)
    if found is None or found.zombie:
        return False
    try:
        (os.killpg if group else os.kill)(handle.pid, number)
    except ProcessLookupError:
        return False
    return True
