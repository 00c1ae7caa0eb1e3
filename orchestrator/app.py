"""What every part of the daemon shares, joined in one place."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from orchestrator.background import Background
from orchestrator.clock import Clock, SystemClock
from orchestrator.home import Home
from storage.artifacts import ArtifactStore
from storage.database import Database


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What jobs may take in all."""

    cpus: int
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class App:
    """The daemon's own things. ``epoch`` is the leader's epoch that every conditional update names."""

    home: Home
    database: Database
    store: ArtifactStore
    resources: Resources
    epoch: int
    clock: Clock = field(default_factory=SystemClock)
    wake: threading.Event = field(default_factory=threading.Event)
    background: Background = field(default_factory=Background)
    faults: dict[str, str] = field(default_factory=dict)
    """Step of the loop -> why it keeps failing; empty when all of them work."""
    replaying: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Scratch stream of a backtest -> who takes it further, and when they last asked on the monotonic clock."""
