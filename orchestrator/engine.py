"""The daemon's loop: the seven steps in turn, again and again; each takes what it finds in SQL as far as it goes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from orchestrator.alarm import AlarmClock
from orchestrator.app import App
from orchestrator.flow import decision, evaluation, housekeeping, merging, promotion, registration, trigger
from orchestrator.flow.arrival import Arrivals
from orchestrator.jobs.supervisor import Supervisor
from storage.errors import DatabaseUnavailable, LeaseLost

log = structlog.get_logger()

LOOK_S = 0.5
"""How often running jobs and due sources are looked at between whole turns."""
QUIET_S = 5.0
"""A whole turn is taken this often when nothing calls for one."""
AFTER_FAULT_S = 2.0

Step = Callable[[App], bool]


class Engine:
    """Runs the steps until told to stop, or until another daemon leads."""

    def __init__(self, app: App, supervisor: Supervisor, *, on_lost: Callable[[], None] = lambda: None) -> None:
        self._app = app
        self._alarm = AlarmClock(app.wake.set)
        self._on_lost = on_lost
        arrivals = Arrivals()
        jobs: tuple[str, Step] = ("job", lambda _: supervisor.tick())
        self._steps: tuple[tuple[str, Step], ...] = (
            ("registration", registration.step),
            ("arrival", arrivals.step),
            ("trigger", trigger.step),
            ("decision", decision.step),
            jobs,
            ("merging", merging.step),
            ("evaluation", evaluation.step),
            ("promotion", promotion.step),
            ("housekeeping", housekeeping.every(app.clock)),
        )
        self._looks: tuple[tuple[str, Step], ...] = (jobs, ("arrival", arrivals.look))

    def run(self, stop: threading.Event) -> None:
        """Take turns until ``stop``; a step that fails is logged and tried again, the others go on."""
        try:
            while not stop.is_set():
                self._app.wake.clear()
                changed, faulty = self.turn()
                if faulty:
                    stop.wait(AFTER_FAULT_S)
                elif not changed:
                    self._rest(stop)
        except LeaseLost as error:
            log.warning("another daemon leads; stopping", action="lease_lost", error=str(error))
            self._on_lost()
        finally:
            self.close()

    def turn(self) -> tuple[bool, bool]:
        """Every step once; whether something changed, and whether a step failed.

        Raises:
            LeaseLost: another daemon leads.
        """
        done = self._take(self._steps)
        self._set_alarm()
        return done

    def _rest(self, stop: threading.Event) -> None:
        """Wait until a job moved, a file arrived or somebody called, at most five seconds; looking costs little."""
        until = self._app.clock.monotonic() + QUIET_S
        while not stop.is_set() and not self._app.wake.wait(LOOK_S):
            changed, faulty = self._take(self._looks)
            if changed or faulty or self._app.clock.monotonic() >= until:
                return

    def _take(self, steps: tuple[tuple[str, Step], ...]) -> tuple[bool, bool]:
        changed = faulty = False
        for name, step in steps:
            try:
                changed |= step(self._app)
                self._app.faults.pop(name, None)
            except LeaseLost:
                raise
            except Exception as error:  # one step's failure must not stop the others, nor the daemon
                faulty = True
                self._report(name, error)
        return changed, faulty

    def close(self) -> None:
        """Stop the alarm clock."""
        self._alarm.close()

    def _set_alarm(self) -> None:
        try:
            self._alarm.set(trigger.next_instant(self._app))
        except DatabaseUnavailable as error:
            self._report("alarm", error)

    def _report(self, step: str, error: Exception) -> None:
        """The same failure is logged once until the step has worked again, so that the log stays bounded."""
        text = f"{type(error).__name__}: {error}"
        if self._app.faults.get(step) != text:
            self._app.faults[step] = text
            log.exception("a step failed; it is tried again", action="step_failed", step=step, error=text)
