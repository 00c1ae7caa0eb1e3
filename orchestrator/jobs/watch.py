"""What the supervisor remembers of one attempt between two looks, and what it sees when it looks."""

from __future__ import annotations

import json
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from orchestrator.importing import IMPORTED, RESULT
from orchestrator.jobs import logs
from orchestrator.jobs.executors.contract import Executor, Handle, Sighting
from orchestrator.jobs.instructions import StopReason
from orchestrator.jobs.lifecycle import AttemptRecord, Imported, Observation
from strategies.contract import EXIT_REFUSED, Progress

ADOPTED, CANCEL, HEARTBEAT, PROGRESS = "adopted.json", "cancel", "heartbeat.json", "progress.json"
ADOPT_EVERY_S = 5.0
PROGRESS_EVERY_S = 1.0
MAX_PROGRESS_BYTES = 64 << 10


@dataclass
class Watch:
    """Memory of one attempt. All of it can be lost: intervals then start anew, which only delays."""

    directory: Path
    executor: Executor
    importer: Executor
    handle: Handle | None = None
    preparation: Future[None] | None = None
    start_error: str = ""
    beat: tuple[int, int] | None = None
    beat_at: float | None = None
    stop: StopReason | None = None
    stop_at: float | None = None
    terminated_at: float | None = None
    adopted_at: float | None = None
    progress_at: float | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    import_handle: Handle | None = None

    def observe(self, attempt: AttemptRecord, *, epoch: int, at: float, wall_s: float) -> Observation:
        """Everything that can be seen at monotonic time ``at``; ``wall_s`` is the attempt's age by the wall clock."""
        sighting = self._sight(attempt)
        self.exit_code = sighting.exit_code if sighting else None
        self._notice_stop(at)
        gone = sighting is not None and sighting.process == "gone"
        return Observation(
            epoch=epoch,
            start=self._start_state(),
            start_error=self.start_error,
            process=_process(attempt, sighting),
            claimed=self.handle is not None,
            exit_code=self.exit_code,
            error=logs.last_line(self.directory) if gone else "",
            heartbeat_age_s=self._heartbeat_age_s(at),
            running_s=sighting.running_s if sighting else wall_s,
            # Looked for after the process: what is gone cannot write a result any more.
            result=(self.directory / RESULT).is_file(),
            imported=self._imported(),
            stop=self.stop,
            stop_age_s=at - self.stop_at if self.stop_at is not None else 0.0,
            terminate_age_s=at - self.terminated_at if self.terminated_at is not None else None,
        )

    def adopt(self, at: float) -> None:
        """Show the job, every few seconds, that a daemon lives; keep its log short."""
        if self.adopted_at is not None and at - self.adopted_at < ADOPT_EVERY_S:
            return
        (self.directory / ADOPTED).touch()
        logs.bound(self.directory)
        self.adopted_at = at

    def new_progress(self, at: float) -> dict[str, Any] | None:
        """The job's progress if it is due and differs from what was last taken."""
        if self.progress_at is not None and at - self.progress_at < PROGRESS_EVERY_S:
            return None
        self.progress_at = at
        progress = read_progress(self.directory)
        if progress is None or progress == self.progress:
            return None
        self.progress = progress
        return progress

    def request_stop(self, reason: StopReason, at: float) -> None:
        """Leave the request in the directory, reason included, where the next daemon finds it too."""
        (self.directory / CANCEL).write_text(json.dumps({"reason": reason}))
        self.stop, self.stop_at = reason, at

    def import_folder(self, number: int) -> Path:
        """Where the n-th import of this attempt keeps its own process files."""
        return self.directory / f"import-{number}"

    def imports(self) -> int:
        """How many imports were begun."""
        return sum(1 for _ in self.directory.glob("import-*"))

    def find_import(self) -> Handle | None:
        """The newest import's process."""
        return self.import_handle or self.importer.find(self.import_folder(self.imports()))

    def _sight(self, attempt: AttemptRecord) -> Sighting | None:
        self.handle = self.handle or self.executor.find(self.directory)
        if self.handle is None or not attempt.local:
            return None
        return self.executor.observe(self.directory, self.handle)

    def _start_state(self) -> Any:
        if self.start_error:
            return "failed"
        if self.preparation is None:
            return "unknown"
        if not self.preparation.done():
            return "preparing"
        error = self.preparation.exception()
        self.start_error = f"could not be started: {error}" if error else ""
        return "failed" if error else "prepared"

    def _notice_stop(self, at: float) -> None:
        if self.stop is not None or not (self.directory / CANCEL).exists():
            return
        reason = _read_json(self.directory / CANCEL, 4096).get("reason")
        self.stop, self.stop_at = (reason if reason in get_args(StopReason) else "cancelled"), at

    def _heartbeat_age_s(self, at: float) -> float:
        """Seconds since the heartbeat was last seen to change, by our own clock: the wall clock may jump."""
        try:
            status = (self.directory / HEARTBEAT).stat()
            beat: tuple[int, int] | None = (status.st_mtime_ns, status.st_ino)
        except OSError:
            beat = self.beat
        if self.beat_at is None or beat != self.beat:
            self.beat, self.beat_at = beat, at
        return at - self.beat_at

    def _imported(self) -> Imported:
        tries = self.imports()
        if tries == 0:
            return Imported()
        folder = self.import_folder(tries)
        handle = self.find_import()
        sighting = self.importer.observe(folder, handle) if handle else Sighting(process="gone")
        if sighting.process == "alive":
            return Imported(state="running", tries=tries, running_s=sighting.running_s)
        if (self.directory / IMPORTED).is_file():
            return Imported(state="done", tries=tries)
        refused = sighting.exit_code == EXIT_REFUSED
        error = logs.last_line(folder) or f"the import ended with exit code {sighting.exit_code}"
        return Imported(state="refused" if refused else "failed", tries=tries, error=error)


def read_progress(directory: Path) -> dict[str, Any] | None:
    """The job's progress, if what lies there is one."""
    try:
        return Progress.model_validate(_read_json(directory / PROGRESS, MAX_PROGRESS_BYTES)).model_dump(mode="json")
    except ValidationError:
        return None


def _process(attempt: AttemptRecord, sighting: Sighting | None) -> Any:
    if not attempt.local:
        return "unseen"
    return sighting.process if sighting else "none"


def _read_json(path: Path, limit: int) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(limit))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
