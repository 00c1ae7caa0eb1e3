"""Every pair of job states, and every combination of what can be seen, through the pure lifecycle."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from orchestrator.jobs import instructions as do
from orchestrator.jobs.lifecycle import AttemptRecord, Imported, JobRecord, Limits, Observation, backoff, decide
from storage.states import JOB_STATES, MOVES, is_legal

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits()
HERE = AttemptRecord(number=1, epoch=1, local=True)
THERE = AttemptRecord(number=1, epoch=1, local=False)
TARGETS = {
    do.Submit: "submitted",
    do.MarkRunning: "running",
    do.Succeed: "succeeded",
    do.Fail: "failed",
    do.MarkLost: "lost",
    do.Cancel: "cancelled",
    do.Requeue: "queued",
}
EFFECTS = (do.Start, do.Terminate, do.Kill, do.Import, do.RequestStop)
IMPORTS = (
    Imported(state="none", tries=1),
    Imported(state="running", tries=1),
    Imported(state="done", tries=1),
    Imported(state="failed", tries=1),
    Imported(state="refused", tries=1),
)
DONE = {"process": "gone", "exit_code": 0, "result": True}


def job(state: str, **more: Any) -> JobRecord:
    attempt = None if state == "queued" else HERE
    return JobRecord(id=7, state=state, **{"timeout_s": 100, "max_attempts": 3, "attempt": attempt, **more})


def seen(**more: Any) -> Observation:
    return Observation(epoch=2, **more)


def path(record: JobRecord, observation: Observation) -> list[str]:
    """The states that the record goes through by one decision."""
    return [TARGETS[type(one)] for one in decide(record, observation, NOW, LIMITS) if type(one) in TARGETS]


def kinds(record: JobRecord, observation: Observation) -> list[type]:
    return [type(one) for one in decide(record, observation, NOW, LIMITS)]


@pytest.mark.parametrize(
    ("record", "observation", "states"),
    [
        (job("queued"), seen(granted=True), ["submitted"]),
        (job("queued"), seen(), []),
        (job("queued"), seen(granted=True, needs="waiting"), []),
        (job("queued", not_before=NOW + timedelta(seconds=1)), seen(granted=True), []),
        (job("queued", not_before=NOW - timedelta(seconds=1)), seen(granted=True), ["submitted"]),
        (job("queued", cancel_requested=True), seen(granted=True), ["cancelled"]),
        (job("queued"), seen(needs="broken"), ["cancelled"]),
        (job("queued"), seen(impossible="too many GPUs"), ["cancelled"]),
        (job("submitted"), seen(start="preparing"), []),
        (job("submitted"), seen(process="alive"), ["running"]),
        (job("submitted"), seen(process="gone", exit_code=1), ["running"]),
        (job("submitted"), seen(start="failed"), ["failed", "queued"]),
        (job("submitted", max_attempts=1), seen(start="failed"), ["failed"]),
        (job("submitted"), seen(start="unknown"), ["lost", "queued"]),
        (job("submitted", cancel_requested=True), seen(start="preparing"), ["cancelled"]),
        (job("running"), seen(process="alive"), []),
        (job("running"), seen(**DONE), []),
        (job("running"), seen(**DONE, imported=Imported(state="running", tries=1)), []),
        (job("running"), seen(**DONE, imported=Imported(state="done", tries=1)), ["succeeded"]),
        (job("running"), seen(**DONE, imported=Imported(state="failed", tries=3)), ["failed", "queued"]),
        (job("running"), seen(**DONE, imported=Imported(state="refused", tries=1)), ["failed", "queued"]),
        (job("running", cancel_requested=True), seen(**DONE), ["cancelled"]),
        (job("running"), seen(process="gone", exit_code=0), ["failed", "queued"]),
        (job("running"), seen(process="gone", exit_code=1), ["failed", "queued"]),
        (job("running"), seen(process="gone", exit_code=1, result=True), ["failed", "queued"]),
        (job("running", failures=2), seen(process="gone", exit_code=-9), ["failed"]),
        (job("running"), seen(process="gone", exit_code=65), ["failed"]),
        (job("running"), seen(process="gone", exit_code=75), ["lost", "queued"]),
        (job("running", yields=4), seen(process="gone", exit_code=75), ["lost", "queued"]),
        (job("running", yields=7), seen(process="gone", exit_code=75), ["failed"]),
        (job("running", cancel_requested=True), seen(process="gone", exit_code=75), ["cancelled"]),
        (job("running"), seen(process="gone", exit_code=75, stop="timeout"), ["failed"]),
        (job("running"), seen(process="gone", exit_code=-9, stop="stalled"), ["failed", "queued"]),
        (job("running"), seen(process="gone", heartbeat_age_s=9), []),
        (job("running"), seen(process="gone", heartbeat_age_s=11), ["lost", "queued"]),
        (job("running", failures=2), seen(process="gone", heartbeat_age_s=11), ["failed"]),
        (job("running"), seen(process="gone", result=True, heartbeat_age_s=0), []),
        (job("running", attempt=THERE), seen(process="unseen", heartbeat_age_s=659), []),
        (job("running", attempt=THERE), seen(process="unseen", heartbeat_age_s=661), ["lost", "queued"]),
        (job("running", attempt=replace(THERE, epoch=2)), seen(process="unseen", heartbeat_age_s=661), []),
        (job("submitted", attempt=THERE), seen(process="unseen", heartbeat_age_s=661), ["lost", "queued"]),
    ],
)
def test_what_is_seen_moves_a_job_along(record: JobRecord, observation: Observation, states: list[str]) -> None:
    assert path(record, observation) == states


def every_observation() -> list[Observation]:
    """All combinations of what can be seen, with ages on both sides of each limit."""
    values = itertools.product(
        ("none", "alive", "gone", "unseen"),
        (None, 0, 1, 65, 75, -9),
        (0.0, 15.0, 1000.0),
        (0.0, 1000.0),
        (False, True),
        IMPORTS,
        (None, "cancelled", "timeout", "stalled"),
        ((0.0, None), (500.0, None), (500.0, 500.0)),
        ("preparing", "prepared", "failed", "unknown"),
    )
    return [
        seen(
            process=process,
            exit_code=code if process == "gone" else None,
            heartbeat_age_s=age,
            running_s=running,
            result=result,
            imported=imported,
            stop=stop,
            stop_age_s=ages[0],
            terminate_age_s=ages[1],
            start=start,
            granted=True,
        )
        for process, code, age, running, result, imported, stop, ages, start in values
        if code is None or process == "gone"
    ]


@pytest.mark.parametrize("start", JOB_STATES)
def test_from_each_state_only_legal_moves_are_asked_for_and_final_states_are_final(start: str) -> None:
    reached = set()
    for observation, cancel in itertools.product(every_observation(), (False, True)):
        local = observation.process != "unseen"
        record = job(
            start, cancel_requested=cancel, **({} if start == "queued" else {"attempt": HERE if local else THERE})
        )
        state = start
        for finish in path(record, observation):
            assert is_legal("job", state, finish), (state, finish, observation)
            state = finish
            reached.add(finish)
    expected = {
        "queued": {"submitted", "cancelled"},
        "submitted": {"running", "failed", "lost", "cancelled", "queued"},
        "running": {"succeeded", "failed", "lost", "cancelled", "queued"},
    }
    assert reached == expected.get(start, set())


@pytest.mark.parametrize(("start", "finish"), list(itertools.product(JOB_STATES, JOB_STATES)))
def test_the_table_of_moves_and_the_lifecycle_agree_on_every_pair(start: str, finish: str) -> None:
    by_lifecycle = {
        ("queued", "submitted"), ("queued", "cancelled"),
        ("submitted", "running"), ("submitted", "failed"), ("submitted", "lost"), ("submitted", "cancelled"),
        ("running", "succeeded"), ("running", "failed"), ("running", "lost"), ("running", "cancelled"),
        ("failed", "queued"), ("lost", "queued"), ("cancelled", "queued"),
    }  # fmt: skip
    allowed_but_unused = {("submitted", "succeeded")}
    assert (finish in MOVES["job"][start]) == ((start, finish) in by_lifecycle | allowed_but_unused)


def test_nothing_is_started_again_while_the_process_may_live() -> None:
    for observation in every_observation():
        for state in ("submitted", "running"):
            again = {do.Requeue, do.Fail, do.MarkLost} & set(kinds(job(state), observation))
            assert not (again and observation.process == "alive")
            if observation.process == "none" and again:
                assert kinds(job(state), observation)[0] is do.Void or state == "running"


@pytest.mark.parametrize("attempt", [HERE, THERE])
def test_a_start_is_forbidden_before_a_job_that_never_started_is_given_up(attempt: AttemptRecord) -> None:
    process = "none" if attempt.local else "unseen"
    for cancel in (False, True):
        record = job("submitted", attempt=attempt, cancel_requested=cancel)
        asked = kinds(record, seen(process=process, heartbeat_age_s=1000, stop="cancelled" if cancel else None))
        assert asked[:2] == [do.Void, do.Cancel if cancel else do.MarkLost]


def test_a_lost_attempt_is_always_followed_by_another() -> None:
    for observation, state in itertools.product(every_observation(), ("submitted", "running")):
        asked = kinds(job(state), observation)
        assert (do.MarkLost not in asked) or asked[-1] is do.Requeue


def test_a_stop_escalates_from_a_request_to_sigterm_to_sigkill() -> None:
    cancelled = job("running", cancel_requested=True)
    assert kinds(cancelled, seen(process="alive")) == [do.RequestStop]
    assert kinds(cancelled, seen(process="alive", stop="cancelled", stop_age_s=119)) == [do.Adopt]
    assert kinds(cancelled, seen(process="alive", stop="cancelled", stop_age_s=120)) == [do.Terminate]
    terminated = {"process": "alive", "stop": "cancelled", "stop_age_s": 140}
    assert kinds(cancelled, seen(**terminated, terminate_age_s=29)) == [do.Wait]
    assert kinds(cancelled, seen(**terminated, terminate_age_s=30)) == [do.Kill]


@pytest.mark.parametrize(
    ("observation", "reason"),
    [
        (seen(process="alive", running_s=101), "timeout"),
        (seen(process="alive", heartbeat_age_s=300), "stalled"),
    ],
)
def test_a_job_that_takes_too_long_or_hangs_is_asked_to_stop(observation: Observation, reason: do.StopReason) -> None:
    assert decide(job("running"), observation, NOW, LIMITS) == (do.RequestStop(reason=reason),)


def test_an_import_that_takes_too_long_is_stopped_and_tried_three_times() -> None:
    late = seen(**DONE, imported=Imported(state="running", tries=1, running_s=3601))
    assert kinds(job("running"), late) == [do.StopImport]
    assert kinds(job("running"), seen(**DONE, imported=Imported(state="failed", tries=2))) == [do.Import]


def test_the_delay_grows_to_a_cap_with_a_jitter_that_is_the_jobs_own() -> None:
    delays = [backoff(job("running"), failures, LIMITS).total_seconds() for failures in (1, 2, 3, 4, 30)]
    factor = delays[0] / 5
    assert 1 <= factor < 1.25
    assert delays == pytest.approx([base * factor for base in (5, 40, 320, 1800, 1800)])
    assert backoff(replace(job("running"), id=8), 1, LIMITS) != backoff(job("running"), 1, LIMITS)


@pytest.mark.parametrize("number", range(1, 40))
def test_five_attempts_start_in_the_first_hour_of_a_job_that_fails_at_once(number: int) -> None:
    starts = [NOW]
    for failures in range(10):
        record = job("running", failures=failures, max_attempts=99, attempt=replace(HERE, number=failures + 1))
        *_, again = decide(replace(record, id=number), seen(process="gone", exit_code=1), starts[-1], LIMITS)
        assert isinstance(again, do.Requeue)
        starts.append(again.not_before)
    assert sum(start < NOW + timedelta(hours=1) for start in starts) == 5
    later = [start for start in starts if start >= NOW + timedelta(hours=1)]
    assert all(after - before >= timedelta(minutes=30) for before, after in itertools.pairwise(later))


def test_a_clock_put_back_does_not_put_a_job_off_for_ever() -> None:
    late = job("queued", not_before=NOW + timedelta(days=300))
    assert path(late, seen(granted=True)) == ["submitted"]
