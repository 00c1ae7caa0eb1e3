"""A job's whole life under random observations, crashes of daemon and job, jumping clocks and changing hosts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orchestrator.jobs import instructions as do
from orchestrator.jobs.lifecycle import AttemptRecord, Imported, JobRecord, Limits, Observation, decide
from storage.states import JOB_ENDED, JOB_UNFINISHED, is_legal

LIMITS = Limits()
FINAL = JOB_ENDED
MOVES = {do.Submit: "submitted", do.MarkRunning: "running", do.Succeed: "succeeded", do.Fail: "failed"}
MOVES |= {do.MarkLost: "lost", do.Cancel: "cancelled", do.Requeue: "queued"}


@dataclass
class TrueAttempt:
    """What is really so, whoever can see it."""

    number: int
    epoch: int
    host: str
    alive: bool = False
    started: bool = False
    voided: bool = False
    exit_code: int | None = None
    code_known: bool = False
    hung: bool = False
    result: bool = False
    state: str = "submitted"
    beat_at: float = 0.0
    started_at: float = 0.0
    imports: int = 0
    imported: Literal["none", "running", "done", "failed", "refused"] = "none"
    stop: do.StopReason | None = None
    stop_at: float = 0.0


def there(one: TrueAttempt | None) -> TrueAttempt:
    """The attempt, which there is."""
    assert one is not None
    return one


class Life(RuleBasedStateMachine):
    """One job, one leading daemon at a time, and the world around them."""

    def __init__(self) -> None:
        super().__init__()
        self.record = JobRecord(id=1, state="queued", timeout_s=3000, max_attempts=3)
        self.attempts: list[TrueAttempt] = []
        self.wall = datetime(2026, 1, 1, tzinfo=UTC)
        self.clock = 0.0
        self.epoch, self.host = 1, "a"
        self.slots = True
        self._forget()

    def _forget(self) -> None:
        """What a daemon's death loses."""
        self.preparation: Literal["preparing", "prepared", "failed", "unknown"] = "unknown"
        self.looked_at: float | None = None
        self.terminated_at: float | None = None

    @property
    def newest(self) -> TrueAttempt | None:
        return self.attempts[-1] if self.attempts and self.record.state != "queued" else None

    # --- what happens ---------------------------------------------------------------------------------------

    @rule(ticks=st.integers(1, 5))
    def the_daemon_works(self, ticks: int) -> None:
        for _ in range(ticks):
            self._tick()

    @rule()
    def the_daemon_works_without_trouble(self) -> None:
        for _ in range(4):
            self.preparation = "prepared" if self.preparation == "preparing" else self.preparation
            self._tick()

    @rule(seconds=st.floats(0.1, 2000))
    def time_passes(self, seconds: float) -> None:
        self._pass(seconds)

    @rule(host=st.sampled_from("ab"))
    def the_daemon_dies_and_another_leads(self, host: str) -> None:
        self.epoch += 1
        self.host = host
        self._forget()
        for one in self.attempts:
            one.code_known = False

    @rule()
    def a_process_that_a_dead_daemon_began_gets_going_at_last(self) -> None:
        for one in self.attempts:
            if one.epoch < self.epoch and not one.started and not one.voided:
                one.alive = one.started = True
                one.started_at = one.beat_at = self.clock

    @rule(code=st.sampled_from([0, 1, 65, 75, -9]), result=st.booleans())
    @precondition(lambda self: self.newest and self.newest.alive)
    def the_process_ends(self, code: int, result: bool) -> None:
        self._end(there(self.newest), code, result=result and code == 0)

    @rule()
    @precondition(lambda self: self.newest and self.newest.alive and self.newest.host == self.host)
    def the_process_hangs(self) -> None:
        there(self.newest).hung = True

    @rule(outcome=st.sampled_from(["prepared", "failed"]))
    @precondition(lambda self: self.preparation == "preparing")
    def the_directory_is_made(self, outcome: Literal["prepared", "failed"]) -> None:
        self.preparation = outcome

    @rule(outcome=st.sampled_from(["done", "failed", "refused"]))
    @precondition(lambda self: self.newest and self.newest.imported == "running")
    def the_import_ends(self, outcome: Literal["done", "failed", "refused"]) -> None:
        there(self.newest).imported = outcome

    @rule(days=st.integers(-400, 400), slots=st.integers(0, 9), cancel=st.integers(0, 9))
    def something_else_happens(self, days: int, slots: int, cancel: int) -> None:
        """The wall clock jumps, slots come and go, a user may cancel."""
        self.wall += timedelta(days=days)
        self.slots = slots > 3
        if self.record.state in JOB_UNFINISHED and cancel == 9:
            self.record = replace(self.record, cancel_requested=True)

    # --- what must hold -------------------------------------------------------------------------------------

    @invariant()
    def at_most_one_process_lives(self) -> None:
        assert sum(one.alive for one in self.attempts) <= 1

    @invariant()
    def only_the_newest_attempt_is_open(self) -> None:
        numbers = [one.number for one in self.attempts]
        assert numbers == sorted(set(numbers))
        assert all(one.state not in ("submitted", "running") for one in self.attempts[:-1])

    @invariant()
    def a_job_that_is_over_has_no_process(self) -> None:
        if self.record.state in FINAL:
            assert not any(one.alive for one in self.attempts if one.host == self.host)

    @invariant()
    def attempts_are_bounded(self) -> None:
        assert len(self.attempts) <= self.record.max_attempts + LIMITS.free_requeues

    def teardown(self) -> None:
        """From wherever it got to, the job comes to an end when the world behaves."""
        self.slots = True
        for _ in range(400):
            if self.record.state in FINAL:
                return
            self._pass(700)
            self._behave()
            self._tick()
        raise AssertionError(f"the job is lost: {self.record} {self.newest}")

    # --- how it works ---------------------------------------------------------------------------------------

    def _behave(self) -> None:
        self.preparation = "prepared" if self.preparation == "preparing" else self.preparation
        one = self.newest
        if one is None:
            return
        one.imported = "done" if one.imported == "running" else one.imported
        if one.alive and not one.hung:
            self._end(one, 75 if one.stop else 0, result=not one.stop)
        elif not one.started and one.host != self.host:
            self.epoch += 1

    def _pass(self, seconds: float) -> None:
        self.clock += seconds
        self.wall += timedelta(seconds=seconds)
        for one in self.attempts:
            self._live_on(one)

    def _live_on(self, one: TrueAttempt) -> None:
        """A process beats unless it hangs. Assumed: what is silent for ten minutes on another host is over."""
        if one.alive and not one.hung:
            one.beat_at = self.clock
        elif one.alive and one.host != self.host and self.clock - one.beat_at > 600:
            self._end(one, 75, result=False)

    def _end(self, one: TrueAttempt, code: int, *, result: bool) -> None:
        one.alive, one.exit_code, one.code_known, one.result = False, code, one.epoch == self.epoch, result

    def _observe(self, one: TrueAttempt | None) -> Observation:
        if one is None:
            return Observation(epoch=self.epoch, granted=self.slots)
        if self.looked_at is None:
            self.looked_at = self.clock
        process: Literal["none", "alive", "gone"] = "none" if not one.started else "alive" if one.alive else "gone"
        return Observation(
            epoch=self.epoch,
            start=self.preparation if one.host == self.host else "unknown",
            process=process if one.host == self.host else "unseen",
            claimed=one.started,
            exit_code=one.exit_code if one.code_known and one.host == self.host else None,
            heartbeat_age_s=self.clock - max(one.beat_at, self.looked_at),
            running_s=self.clock - one.started_at,
            result=one.result,
            imported=Imported(state=one.imported, tries=one.imports),
            stop=one.stop,
            stop_age_s=self.clock - one.stop_at,
            terminate_age_s=None if self.terminated_at is None else self.clock - self.terminated_at,
        )

    def _tick(self) -> None:
        one = self.newest
        attempt = AttemptRecord(number=one.number, epoch=one.epoch, local=one.host == self.host) if one else None
        ended = [past for past in self.attempts if past.state in ("failed", "lost")]
        free = [past for past in ended if past.state == "lost" and (past.exit_code == 75 or not past.started)]
        record = replace(self.record, failures=len(ended) - len(free), yields=len(free), attempt=attempt)
        for instruction in decide(record, self._observe(one), self.wall, LIMITS):
            if isinstance(instruction, do.Void) and there(one).started:
                return
            self._carry_out(instruction, one)

    def _carry_out(self, instruction: do.Instruction, one: TrueAttempt | None) -> None:
        effects: dict[type[do.Instruction], Callable[[TrueAttempt, do.Instruction], None]] = {
            do.Start: self._start,
            do.Void: self._void,
            do.RequestStop: self._request_stop,
            do.Terminate: self._terminate,
            do.Kill: self._kill,
            do.Import: self._import,
        }
        if (effect := effects.get(type(instruction))) is not None:
            effect(there(one), instruction)
        if (finish := MOVES.get(type(instruction))) is not None:
            self._move(finish, one, instruction)

    def _move(self, finish: str, one: TrueAttempt | None, instruction: do.Instruction) -> None:
        assert is_legal("job", self.record.state, finish)
        self.record = replace(self.record, state=finish, not_before=getattr(instruction, "not_before", None))
        if finish == "submitted":
            assert not any(past.alive for past in self.attempts), "two processes"
            self.attempts.append(TrueAttempt(len(self.attempts) + 1, self.epoch, self.host, beat_at=self.clock))
            self._forget()
            self.preparation = "preparing"
        elif one is not None and finish != "queued":
            one.state = finish

    def _start(self, one: TrueAttempt, _: object) -> None:
        assert not one.started
        if not one.voided:
            one.alive = one.started = True
            one.started_at = one.beat_at = self.clock

    def _void(self, one: TrueAttempt, _: object) -> None:
        one.voided = True

    def _request_stop(self, one: TrueAttempt, instruction: do.Instruction) -> None:
        assert isinstance(instruction, do.RequestStop)
        one.stop, one.stop_at = instruction.reason, self.clock

    def _terminate(self, one: TrueAttempt, _: object) -> None:
        self.terminated_at = self.clock

    def _kill(self, one: TrueAttempt, _: object) -> None:
        self._end(one, -9, result=False)

    def _import(self, one: TrueAttempt, _: object) -> None:
        assert one.result
        one.imported, one.imports = "running", one.imports + 1


Life.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
test_a_jobs_whole_life = Life.TestCase
