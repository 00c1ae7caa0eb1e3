"""Carries out what the lifecycle asks for: one look at every unfinished job a tick, nothing in it waits.

Two supervisors on one database harm nothing: a tick begins by checking that its epoch leads, every move names the
epoch, and in a job's directory only one process can ever start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.orm import Session

from orchestrator.app import App
from orchestrator.importing import ResultRefused
from orchestrator.jobs import bookkeeping, cleanup, records, submission
from orchestrator.jobs.executors.contract import Executor, Grant
from orchestrator.jobs.executors.local import LocalExecutor
from orchestrator.jobs.gpus import GpuProbe
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
    Submit,
    Succeed,
    Terminate,
    Void,
    Wait,
)
from orchestrator.jobs.lifecycle import JobRecord, Limits, Observation, decide, is_ready
from orchestrator.jobs.records import Case
from orchestrator.jobs.slots import Capacity, Request, grants, impossible
from orchestrator.jobs.watch import Watch
from storage.errors import DatabaseUnavailable, LeaseLost, StaleRecord, StorageError
from storage.tables import Attempt

SWEEP_EVERY_S = 600.0
PREPARERS = 2
log = structlog.get_logger()


class Supervisor:
    """One for a daemon's life as leader; all it remembers can be lost and is found again on disk and in SQL."""

    def __init__(
        self,
        app: App,
        *,
        executor: Executor | None = None,
        importer: Executor | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._app = app
        self._executor = executor or LocalExecutor()
        self._importer = importer or LocalExecutor("orchestrator.importing")
        self._limits = limits or Limits()
        self._host = records.host_name()
        self._watches: dict[int, Watch] = {}
        self._workers = ThreadPoolExecutor(max_workers=PREPARERS, thread_name_prefix="jobs")
        self._probe = GpuProbe(app.resources.gpus, self._workers, app.clock.monotonic)
        self._complaints: dict[int, str] = {}
        self._swept_at: float | None = None
        self._swept_to = 0

    def tick(self) -> bool:
        """Look at every unfinished job once and do what is due; say whether anything changed.

        Raises:
            LeaseLost: another daemon leads; this one must stop.
            DatabaseUnavailable: try again later.
        """
        with self._app.database.read() as session:
            bookkeeping.require_leader(session, self._app.epoch)
            cases = records.unfinished(session)
        self._forget(cases)
        now = self._app.clock.now()
        granted = self._grants(cases, now)
        changed = [self._step(case, granted.get(case.job.id), now) for case in cases]
        self._save_progress(cases)
        self._sweep(now)
        return any(changed)

    def close(self) -> None:
        """Stop the worker threads; jobs run on and are adopted by the next daemon."""
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _forget(self, cases: Sequence[Case]) -> None:
        current = {case.newest.id for case in cases if case.newest is not None}
        self._watches = {attempt: watch for attempt, watch in self._watches.items() if attempt in current}
        jobs = {case.job.id for case in cases}
        self._complaints = {job: text for job, text in self._complaints.items() if job in jobs}

    def _grants(self, cases: Sequence[Case], now: datetime) -> dict[int, Grant]:
        waiting = [case for case in cases if case.job.state == "queued" and self._is_ready(case, now)]
        if not waiting:
            return {}
        busy = [
            Grant(cpus=case.newest.cpus, gpus=tuple(case.newest.gpus))
            for case in cases
            if case.newest is not None and case.newest.host == self._host
        ]
        requests = [
            Request(job=case.job.id, cpus=case.job.cpus, gpus=case.job.gpus, priority=case.job.priority)
            for case in waiting
        ]
        return grants(requests, busy, self._capacity(any(request.gpus for request in requests)))

    def _capacity(self, with_gpus: bool) -> Capacity:
        resources = self._app.resources
        idle = self._probe.idle() if with_gpus else frozenset[int]()
        return Capacity(cpus=resources.cpus, gpus=tuple(resources.gpus), idle_gpus=idle)

    def _is_ready(self, case: Case, now: datetime) -> bool:
        seen = Observation(epoch=self._app.epoch, needs=case.needs.state)
        return is_ready(records.record_of(case, self._host), seen, now, self._limits)

    def _step(self, case: Case, grant: Grant | None, now: datetime) -> bool:
        """One job's share of a tick; what goes wrong with it must not stop the others."""
        record = records.record_of(case, self._host)
        try:
            instructions = decide(record, self._observe(case, record, grant, now), now, self._limits)
            return self._carry_out(case, instructions, grant, now)
        except (LeaseLost, DatabaseUnavailable):
            raise
        except (OSError, ValueError, StorageError, ResultRefused) as error:
            self._complain(case, error)
        return False

    def _complain(self, case: Case, error: Exception) -> None:
        """Once for one trouble, however many ticks it lasts; another's move is no trouble."""
        if isinstance(error, StaleRecord) or self._complaints.get(case.job.id) == str(error):
            return
        self._complaints[case.job.id] = str(error)
        log.warning("job cannot be advanced", action="job_stuck", job=case.job.id, error=str(error))

    def _observe(self, case: Case, record: JobRecord, grant: Grant | None, now: datetime) -> Observation:
        if case.newest is None or record.attempt is None:
            request = Request(job=case.job.id, cpus=case.job.cpus, gpus=case.job.gpus)
            return Observation(
                epoch=self._app.epoch,
                needs=case.needs.state,
                needs_reason=case.needs.reason,
                granted=grant is not None,
                impossible=impossible(request, self._capacity(with_gpus=False)),
            )
        return self._watch(case.newest).observe(
            record.attempt,
            epoch=self._app.epoch,
            at=self._app.clock.monotonic(),
            wall_s=max(0.0, (now - case.newest.started_at).total_seconds()),
        )

    def _watch(self, attempt: Attempt) -> Watch:
        watch = self._watches.get(attempt.id)
        if watch is None:
            watch = Watch(directory=Path(attempt.directory), executor=self._executor, importer=self._importer)
            self._watches[attempt.id] = watch
        return watch

    def _carry_out(self, case: Case, instructions: Sequence[Instruction], grant: Grant | None, now: datetime) -> bool:
        """Effects first, then all SQL in one transaction; False if nothing had to be done."""
        moves: list[Instruction] = []
        for instruction in instructions:
            if isinstance(instruction, Wait | Adopt):
                self._idle(case, instruction)
            elif isinstance(instruction, Submit):
                self._submit(case, grant, now)
            elif (effect := _EFFECTS.get(type(instruction))) is not None:
                if not effect(self, case, instruction):
                    return True
            else:
                moves.append(instruction)
        if moves:
            self._move(case, moves, now)
        return not all(isinstance(instruction, _REPEATED) for instruction in instructions)

    def _idle(self, case: Case, instruction: Instruction) -> None:
        if isinstance(instruction, Adopt) and case.newest is not None:
            self._watch(case.newest).adopt(self._app.clock.monotonic())

    def _submit(self, case: Case, grant: Grant | None, now: datetime) -> None:
        assert grant is not None
        number = case.job.attempt + 1
        directory = self._app.home.job_directory(case.job.id, number)
        order = submission.order(case, attempt=number, directory=directory, grant=grant)
        with self._app.database.write() as session:
            attempt = bookkeeping.submit(
                session, case.job, directory=directory, grant=grant, host=self._host, epoch=self._app.epoch, at=now
            )
        self._watch(attempt).preparation = self._workers.submit(self._prepare, order)

    def _prepare(self, order: submission.Order) -> None:
        try:
            submission.prepare(order, self._app.store, self._app.home.cache / "models")
        finally:
            self._app.wake.set()

    def _start(self, case: Case, _instruction: Instruction) -> bool:
        watch, attempt = self._current(case)
        grant = Grant(cpus=attempt.cpus, gpus=tuple(attempt.gpus))
        try:
            watch.handle = self._executor.start(watch.directory, arguments=[str(watch.directory)], grant=grant)
        except OSError as error:
            watch.start_error = f"its process could not be started: {error}"
        return True

    def _void(self, case: Case, _instruction: Instruction) -> bool:
        return self._executor.void(self._current(case)[0].directory)

    def _request_stop(self, case: Case, instruction: Instruction) -> bool:
        assert isinstance(instruction, RequestStop)
        watch = self._current(case)[0]
        watch.request_stop(instruction.reason, self._app.clock.monotonic())
        return True

    def _terminate(self, case: Case, _instruction: Instruction) -> bool:
        watch = self._current(case)[0]
        watch.terminated_at = self._app.clock.monotonic()
        return watch.handle is not None and self._executor.terminate(watch.handle)

    def _kill(self, case: Case, _instruction: Instruction) -> bool:
        watch = self._current(case)[0]
        return watch.handle is not None and self._executor.kill(watch.handle)

    def _import(self, case: Case, _instruction: Instruction) -> bool:
        watch = self._current(case)[0]
        watch.import_handle = self._importer.start(
            watch.import_folder(watch.imports() + 1),
            arguments=[str(watch.directory), str(self._app.home.artifacts)],
            grant=Grant(cpus=1),
        )
        return True

    def _stop_import(self, case: Case, _instruction: Instruction) -> bool:
        watch = self._current(case)[0]
        handle = watch.find_import()
        if handle is not None:
            self._importer.kill(handle)
        return True

    def _move(self, case: Case, moves: Sequence[Instruction], now: datetime) -> None:
        """All SQL of one decision; its record is read again when the transaction does not commit."""
        changes = [self._change(case, instruction, now) for instruction in moves]
        with self._app.database.write() as session:
            for change in changes:
                change(session)
        why = getattr(moves[0], "reason", type(moves[0]).__name__)
        log.info("job moved", action="job_moved", job=case.job.id, state=case.job.state, reason=why)
        if case.job.state == "succeeded" and case.newest is not None:
            left = cleanup.Leftover(attempt=case.newest.id, directory=Path(case.newest.directory), stored=True)
            self._workers.submit(cleanup.tidy, [left])

    def _change(self, case: Case, instruction: Instruction, now: datetime) -> Callable[[Session], None]:
        """The SQL of one instruction; files it needs are read here, before the transaction."""
        job, epoch = case.job, self._app.epoch
        if isinstance(instruction, Requeue):
            return lambda session: bookkeeping.requeue(session, job, instruction, epoch=epoch)
        if case.newest is None:
            assert isinstance(instruction, Cancel)
            return lambda session: bookkeeping.end_attempt(
                session, job, None, instruction=instruction, exit_code=None, epoch=epoch, at=now
            )
        watch, attempt = self._current(case)
        if isinstance(instruction, MarkRunning):
            handle = watch.handle
            assert handle is not None
            return lambda session: bookkeeping.mark_running(session, job, attempt, handle=handle, epoch=epoch, at=now)
        shared: dict[str, Any] = {"exit_code": watch.exit_code, "epoch": epoch, "at": now}
        if isinstance(instruction, Succeed):
            return self._success(case, attempt, shared)
        assert isinstance(instruction, Cancel | Fail | MarkLost)
        return lambda session: bookkeeping.end_attempt(session, job, attempt, instruction=instruction, **shared)

    def _success(self, case: Case, attempt: Attempt, shared: dict[str, Any]) -> Callable[[Session], None]:
        got = bookkeeping.harvest(Path(attempt.directory), self._app.store)
        return lambda session: bookkeeping.succeed(session, case.job, attempt, got=got, **shared)

    def _current(self, case: Case) -> tuple[Watch, Attempt]:
        assert case.newest is not None
        return self._watch(case.newest), case.newest

    def _save_progress(self, cases: Sequence[Case]) -> None:
        running = [case for case in cases if case.job.state == "running" and case.newest is not None]
        at = self._app.clock.monotonic()
        due = [(case.job, progress) for case in running if (progress := self._current(case)[0].new_progress(at))]
        if not due:
            return
        with self._app.database.write() as session:
            for job, progress in due:
                bookkeeping.save_progress(session, job, progress, epoch=self._app.epoch)

    def _sweep(self, now: datetime) -> None:
        """Every ten minutes, give the disk space of some more finished attempts back, beside the loop."""
        at = self._app.clock.monotonic()
        if self._swept_at is not None and at - self._swept_at < SWEEP_EVERY_S:
            return
        self._swept_at = at
        with self._app.database.read() as session:
            found = cleanup.leftovers(session, host=self._host, after=self._swept_to, now=now)
        if not found:
            self._swept_to = 0
            return
        self._swept_to = found[-1].attempt
        self._workers.submit(cleanup.tidy, found)


_REPEATED = (Wait, Adopt, Kill, StopImport)
"""Given again until what they wait for has happened: no reason to look again at once."""
_EFFECTS: dict[type[Instruction], Callable[[Supervisor, Case, Instruction], bool]] = {
    Start: Supervisor._start,
    Void: Supervisor._void,
    RequestStop: Supervisor._request_stop,
    Terminate: Supervisor._terminate,
    Kill: Supervisor._kill,
    Import: Supervisor._import,
    StopImport: Supervisor._stop_import,
}
