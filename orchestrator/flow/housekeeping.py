"""Beside the flow: what is no longer needed goes, at its own pace."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.app import App
from orchestrator.clock import Clock
from orchestrator.flow import publication

EVERY_S = 600.0


def every(clock: Clock) -> Callable[[App], bool]:
    """A step that, every ten minutes, removes published folders that were replaced long enough ago."""
    due = clock.monotonic()

    def step(app: App) -> bool:
        nonlocal due
        if clock.monotonic() >= due:
            due = clock.monotonic() + EVERY_S
            app.background.start("sweep", lambda: publication.sweep(app))
        return False

    return step
