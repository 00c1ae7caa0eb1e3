"""The supervisor with real processes, real signals and real SQL."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from orchestrator.errors import Conflict
from orchestrator.jobs import queue
from orchestrator.jobs.executors.contract import Grant, Handle
from orchestrator.jobs.executors.local import LocalExecutor
from storage.errors import LeaseLost
from storage.tables import Event, Job, Manifest, StoredObject
from tests.jobs.conftest import QUICK, Toys, error_of, is_alive, kill

PATIENT = replace(QUICK, cancel_grace_s=30.0)
"""A job that is asked to stop is not hurried, however busy the machine is."""


def config(toys: Toys, job: Job) -> Any:
    manifest = toys.app.store.read_manifest(toys.model(job))
    entry = next(one for one in manifest.entries if one.path == "config.json")
    return json.loads(toys.app.store.path(entry.object_hash).read_text())


def test_a_job_runs_and_what_it_left_is_stored_and_registered(toys: Toys) -> None:
    job = toys.reach(toys.supervisor(), toys.queue("make"), "succeeded")
    assert job.result is not None
    results = job.result["scores"][0]["results"]
    with toys.app.database.read() as session:
        assert session.get(Manifest, toys.model(job))
        assert session.get(StoredObject, results)
    assert toys.app.store.path(results).read_bytes() == b"per example"
    assert [one.state for one in toys.attempts(job)] == ["succeeded"]
    assert job.error is None
    assert job.finished_at is not None


def test_every_move_leaves_an_event_in_order(toys: Toys) -> None:
    job = toys.reach(toys.supervisor(), toys.queue("make"), "succeeded")
    with toys.app.database.read() as session:
        query = select(Event.to_state).where(Event.subject == "job", Event.subject_id == str(job.id)).order_by(Event.id)
        states = session.scalars(query).all()
    assert states == [None, "submitted", "running", "succeeded"]


def test_queueing_the_same_key_again_gives_the_same_job(toys: Toys) -> None:
    assert toys.queue("make").id == toys.queue("make").id


def test_a_job_outlives_its_supervisor_and_the_next_one_adopts_the_same_process(toys: Toys) -> None:
    job = toys.queue("hold")
    pid = toys.beating(toys.supervisor(), job)
    follower = toys.supervisor(app=toys.successor())
    adopted = toys.directory(job) / "adopted.json"
    before = adopted.stat().st_mtime_ns
    toys.drive(follower, lambda: adopted.stat().st_mtime_ns > before)
    (toys.directory(job) / "release").touch()
    toys.reach(follower, job, "succeeded")
    assert [one.pid for one in toys.attempts(job)] == [pid]


def test_a_daemon_that_died_between_submission_and_start_leaves_an_attempt_that_never_starts(toys: Toys) -> None:
    job = toys.queue("make")
    first = toys.supervisor()
    toys.drive(first, lambda: toys.job(job).state == "submitted")
    first.close()
    done = toys.reach(toys.supervisor(app=toys.successor()), job, "succeeded")
    assert [(one.state, one.pid is None) for one in toys.attempts(done)] == [("lost", True), ("succeeded", False)]
    assert (toys.directory(job, 1) / "void").exists()


def test_a_daemon_that_died_after_the_start_finds_the_process_by_its_own_account(toys: Toys) -> None:
    job = toys.queue("hold")
    first = toys.supervisor()
    directory = toys.directory(job)
    toys.drive(first, lambda: (directory / "job.json").exists())
    toys.made.remove(first)
    executor = LocalExecutor("tests.jobs.toy_job")
    executor.start(directory, arguments=[str(directory)], grant=Grant(cpus=1))
    while (handle := executor.find(directory)) is None:
        time.sleep(0.01)
    assert toys.beating(toys.supervisor(app=toys.successor()), job) == handle.pid
    first.close()


def test_a_killed_job_is_tried_again_from_its_last_checkpoint(toys: Toys) -> None:
    job = toys.queue("resume")
    supervisor = toys.supervisor()
    kill(toys.beating(supervisor, job))
    done = toys.reach(supervisor, job, "succeeded")
    assert config(toys, done)["found"] is True
    first, second = toys.attempts(done)
    assert (first.state, first.exit_code, second.state) == ("failed", -9, "succeeded")
    assert "signal 9" in error_of(first)


def test_an_adopted_job_that_vanishes_is_lost_only_when_its_lease_has_expired(toys: Toys) -> None:
    job = toys.queue("resume")
    pid = toys.beating(toys.supervisor(), job)
    follower = toys.supervisor(app=toys.successor(), limits=replace(QUICK, lease_s=0.5))
    follower.tick()
    kill(pid)
    os.waitpid(pid, 0)
    follower.tick()
    assert toys.job(job).state == "running"
    done = toys.reach(follower, job, "succeeded")
    assert [one.state for one in toys.attempts(done)] == ["lost", "succeeded"]


def test_a_job_that_finished_while_no_daemon_lived_has_succeeded(toys: Toys) -> None:
    job = toys.queue("hold")
    pid = toys.beating(toys.supervisor(), job)
    (toys.directory(job) / "release").touch()
    os.waitpid(pid, 0)
    done = toys.reach(toys.supervisor(app=toys.successor()), job, "succeeded")
    assert [one.exit_code for one in toys.attempts(done)] == [None]


def test_a_supervisor_whose_epoch_is_over_does_nothing(toys: Toys) -> None:
    job = toys.queue("hold")
    stale = toys.supervisor()
    pid = toys.beating(stale, job)
    follower = toys.supervisor(app=toys.successor())
    with toys.app.database.write() as session:
        queue.cancel(session, toys.job(job), "user", "no longer wanted")
    with pytest.raises(LeaseLost):
        stale.tick()
    assert is_alive(pid)
    assert toys.reach(follower, job, "cancelled").error == "no longer wanted"


def test_a_queued_job_is_cancelled_at_once_and_twice_is_no_harm(toys: Toys) -> None:
    job = toys.queue("hold")
    with toys.app.database.write() as session:
        queue.cancel(session, job, "user", "changed my mind")
        queue.cancel(session, job, "user", "again")
    assert (toys.job(job).state, toys.job(job).error) == ("cancelled", "changed my mind")


def test_a_cancelled_job_writes_its_checkpoint_and_ends(toys: Toys) -> None:
    job = toys.queue("hold")
    supervisor = toys.supervisor(limits=PATIENT)
    toys.beating(supervisor, job)
    with toys.app.database.write() as session:
        queue.cancel(session, toys.job(job), "user", "not needed")
    toys.reach(supervisor, job, "cancelled")
    (attempt,) = toys.attempts(job)
    assert (attempt.state, attempt.exit_code) == ("cancelled", 75)


def test_a_job_that_ignores_every_request_is_killed_with_its_children(toys: Toys) -> None:
    job = toys.queue("child")
    supervisor = toys.supervisor()
    toys.beating(supervisor, job)
    toys.drive(supervisor, (toys.directory(job) / "child").exists)
    child = int((toys.directory(job) / "child").read_text())
    with toys.app.database.write() as session:
        queue.cancel(session, toys.job(job), "user", "hangs")
    toys.reach(supervisor, job, "cancelled")
    assert toys.attempts(job)[0].exit_code == -9
    toys.drive(supervisor, lambda: not is_alive(child))


def test_a_job_over_its_time_limit_fails_for_good(toys: Toys) -> None:
    job = toys.reach(toys.supervisor(), toys.queue("stubborn", timeout_s=0), "failed")
    assert "longer than its limit" in error_of(job)
    assert len(toys.attempts(job)) == 1


def test_a_job_without_a_heartbeat_is_stopped_and_tried_again(toys: Toys) -> None:
    job = toys.queue("silent", max_attempts=2)
    failed = toys.reach(toys.supervisor(limits=replace(PATIENT, stall_s=0.2)), job, "failed")
    assert "hung without a heartbeat" in error_of(failed)
    assert [(one.state, one.exit_code) for one in toys.attempts(job)] == [("failed", 75)] * 2


def test_a_refusal_is_final_and_says_why(toys: Toys) -> None:
    job = toys.reach(toys.supervisor(), toys.queue("refuse"), "failed")
    assert job.error == "refused its input: row 3 has no text"
    assert len(toys.attempts(job)) == 1


def test_a_job_that_crashes_is_tried_as_often_as_it_may_then_fails_and_a_user_may_retry(toys: Toys) -> None:
    supervisor = toys.supervisor()
    job = toys.reach(supervisor, toys.queue("crash", max_attempts=2), "failed")
    assert job.error == "ended with exit code 1: the toy broke"
    assert [one.state for one in toys.attempts(job)] == ["failed", "failed"]
    with toys.app.database.write() as session:
        queue.retry(session, job, "user")
    toys.drive(supervisor, lambda: toys.job(job).state == "failed" and len(toys.attempts(job)) == 3)


def test_stopping_early_is_no_failure_until_it_happens_too_often(toys: Toys) -> None:
    job = toys.reach(toys.supervisor(), toys.queue("yield", max_attempts=1), "failed")
    assert [one.state for one in toys.attempts(job)] == ["lost", "lost", "failed"]


def test_a_job_that_leaves_no_result_or_a_bad_one_fails(toys: Toys) -> None:
    supervisor = toys.supervisor()
    silent = toys.reach(supervisor, toys.queue("nothing", max_attempts=1), "failed")
    assert "left no result.json" in error_of(silent)
    bad = toys.reach(supervisor, toys.queue("escape", max_attempts=1), "failed")
    assert "lies outside the job directory" in error_of(bad)
    assert len(list(toys.directory(bad).glob("import-*"))) == 1


def test_a_backoff_puts_the_next_attempt_off(toys: Toys) -> None:
    job = toys.queue("crash")
    supervisor = toys.supervisor(limits=replace(QUICK, backoff_s=1000.0))
    toys.drive(supervisor, lambda: toys.attempts(job) and toys.job(job).state == "queued")
    again, ended = toys.job(job).not_before, toys.attempts(job)[0].finished_at
    assert again is not None
    assert ended is not None
    delay = again - ended
    assert timedelta(seconds=1000) <= delay <= timedelta(seconds=1250)
    assert not supervisor.tick()


def test_a_job_waits_for_what_it_needs_and_gets_its_artifacts(toys: Toys) -> None:
    first = toys.queue("make", decision_id=None)
    spec = {**first.spec, "model": {"path": "@make/answer/model"}}
    second = toys.queue("environment", needs=["make"], spec=spec)
    done = toys.reach(toys.supervisor(), second, "succeeded")
    written = json.loads((toys.directory(done) / "job.json").read_text())
    assert (Path(written["model"]["path"]) / "config.json").is_file()
    assert Path(written["model"]["path"]).name == toys.model(first)


def test_what_needs_a_failed_job_is_cancelled_with_the_reason(toys: Toys) -> None:
    first = toys.queue("refuse")
    second = toys.reach(toys.supervisor(), toys.queue("make", needs=["refuse"]), "cancelled")
    assert second.error == f"needs job {first.id} (refuse), which failed"


def test_an_unresolvable_spec_fails_the_attempt_with_the_reason(toys: Toys) -> None:
    spec = {**toys.queue("hold", key="other").spec, "model": {"path": "../secret"}}
    job = toys.reach(toys.supervisor(), toys.queue("make", spec=spec, max_attempts=1), "failed")
    assert "'../secret' is no path of a job" in error_of(job)


def test_progress_is_copied_while_the_job_runs(toys: Toys) -> None:
    job = toys.queue("hold")
    supervisor = toys.supervisor()
    toys.beating(supervisor, job)
    toys.drive(supervisor, lambda: toys.job(job).progress.get("step", 0) > 1)
    assert toys.job(job).progress["phase"] == "toy"


def test_no_more_jobs_run_at_once_than_there_are_slots(toys: Toys) -> None:
    jobs = [toys.queue("hold", key=f"hold-{n}") for n in range(4)]
    supervisor = toys.supervisor()
    toys.drive(supervisor, lambda: sum(toys.job(job).state == "running" for job in jobs) == 2)
    for _ in range(5):
        supervisor.tick()
    assert [toys.job(job).state for job in jobs] == ["running", "running", "queued", "queued"]


def test_an_ended_job_cannot_be_cancelled_nor_an_unfinished_one_retried(toys: Toys) -> None:
    job = toys.queue("make")
    with pytest.raises(Conflict, match="only a failed or cancelled job"), toys.app.database.write() as session:
        queue.retry(session, job, "user")
    done = toys.reach(toys.supervisor(), job, "succeeded")
    with pytest.raises(Conflict, match="already succeeded"), toys.app.database.write() as session:
        queue.cancel(session, done, "user", "late")


def test_a_process_with_a_used_again_pid_is_never_signalled(toys: Toys) -> None:
    job = toys.queue("hold")
    pid = toys.beating(toys.supervisor(), job)
    executor = LocalExecutor("tests.jobs.toy_job")
    true = executor.find(toys.directory(job))
    assert true is not None
    other = Handle(boot_id=true.boot_id, pid=pid, started=true.started - 1)
    assert not executor.kill(other)
    assert not executor.terminate(replace(true, boot_id="another boot"))
    assert executor.observe(Path("/nonexistent"), other).process == "gone"
    assert is_alive(pid)


def test_a_cancelled_job_is_tried_again_on_request(toys: Toys) -> None:
    job = toys.queue("make")
    with toys.app.database.write() as session:
        queue.cancel(session, job, "user", "not now")
    with toys.app.database.write() as session:
        queue.retry(session, toys.job(job), "user")
    assert toys.reach(toys.supervisor(), job, "succeeded").cancel_requested is False
