"""A real daemon as a user has it: a process, a home, the command line."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from orchestrator.home import Home

REKINDLE = [str(Path(sys.executable).with_name("rekindle"))]


class Daemon:
    """``rekindle serve`` on a home and a free port."""

    def __init__(self, root: Path, **environment: str) -> None:
        self.home = Home(root=root)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("REKINDLE")}
        self._environment = {**kept, "REKINDLE_HOME": str(root), "OMP_NUM_THREADS": "1", **environment}
        self._process: subprocess.Popen[str] | None = None

    @property
    def process(self) -> subprocess.Popen[str]:
        """The daemon's process."""
        assert self._process is not None, "not started"
        return self._process

    def start(self) -> Daemon:
        """Serve, and wait until the daemon says so."""
        self._process = subprocess.Popen(
            [*REKINDLE, "serve", "--port", "0"],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        line = (self._process.stdout.readline() if self._process.stdout else "").strip()
        assert re.search(r"http://127\.0\.0\.1:\d+", line), f"no daemon: {line!r}"
        return self

    def stop(self) -> None:
        """End it as a service manager would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would; its jobs live on."""
        self._end(signal.SIGKILL)

    def cli(self, *arguments: str, code: int = 0, timeout_s: float = 240) -> str:
        """Run one command; its output."""
        ran = self.run(*arguments, timeout_s=timeout_s)
        assert ran.returncode == code, f"{arguments}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
        return ran.stdout

    def run(self, *arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        """Run one command, whatever comes of it."""
        return subprocess.run(
            [*REKINDLE, *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        """What a command prints as JSON."""
        return json.loads(self.cli("--output", "json", *arguments))

    def wait(self, what: Callable[[], Any], *, timeout_s: float = 180, every_s: float = 0.2) -> Any:
        """Poll until ``what`` is true; its value."""
        deadline = time.monotonic() + timeout_s
        while not (found := what()):
            assert time.monotonic() < deadline, "it never came"
            time.sleep(every_s)
        return found

    def kill_jobs(self) -> None:
        """End every job process of this home."""
        for pid in self.job_pids():
            _signal(pid, signal.SIGKILL)

    def job_pids(self) -> list[int]:
        """Process ids of live jobs, by their heartbeats."""
        beats = self.home.jobs.glob("*/*/heartbeat.json")
        return [pid for beat in beats if (pid := _pid_of(beat)) and _state(pid) not in ("", "Z")]

    def stop_training_at(self, pattern: str) -> Path:
        """Stop the newest job as soon as it has such a folder among its checkpoints; returns the folder of all.

        The kernel stops it at every folder that it makes or renames there, however late this process looks.
        """
        job = self._newest_begun()
        assert job is not None, "no job has begun"
        pid, folder = _pid_of(job / "heartbeat.json"), job / "checkpoints"
        folder.mkdir(exist_ok=True)

        def stopped() -> bool:
            if _state(pid) != "T":
                return False
            if not any(folder.glob(pattern)):
                _signal(pid, signal.SIGCONT)
                return False
            return True

        with _folder(folder) as watched:
            fcntl.fcntl(watched, fcntl.F_SETSIG, signal.SIGSTOP)
            fcntl.fcntl(watched, fcntl.F_SETOWN, pid)
            fcntl.fcntl(watched, fcntl.F_NOTIFY, fcntl.DN_CREATE | fcntl.DN_RENAME | fcntl.DN_MULTISHOT)
            self.wait(stopped, every_s=0.005)
        return folder

    def training_step(self) -> int:
        """The step that the newest train job has reached."""
        steps = [_read(path).get("step", 0) for path in self.home.jobs.glob("*/*/progress.json") if _is_training(path)]
        return max(steps, default=0)

    def newest_job(self) -> tuple[str, bool] | None:
        """Kind of work of the newest job that has begun, and whether it has ended; read from its files, at once."""
        newest = self._newest_begun()
        if newest is None:
            return None
        return _read(newest / "job.json").get("work", {}).get("kind", ""), (newest / "result.json").exists()

    def _newest_begun(self) -> Path | None:
        begun = {int(path.parents[1].name): path.parent for path in self.home.jobs.glob("*/*/heartbeat.json")}
        return begun[max(begun)] if begun else None

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        _signal(self._process.pid, number)
        self._process.wait(timeout=60)
        if self._process.stdout:
            self._process.stdout.close()
        self._process = None


def write_jsonl(path: Path, texts: Iterable[str], **fields: str) -> Path:
    """Documents with ids."""
    lines = (json.dumps({"id": f"{path.stem}-{at}", "text": text, **fields}) for at, text in enumerate(texts))
    path.write_text("\n".join(lines) + "\n")
    return path


def copy_home(source: Path, target: Path) -> Path:
    """The same home once more: the same split key and batches, so that runs can be compared byte for byte."""
    shutil.copytree(source, target, symlinks=True)
    return target


def _is_training(progress: Path) -> bool:
    return bool(_read(progress.with_name("job.json")).get("work", {}).get("kind") == "train")


def _pid_of(heartbeat: Path) -> int:
    return int(_read(heartbeat).get("pid", 0))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _state(pid: int) -> str:
    """As the kernel abbreviates it: T is stopped, Z has ended; nothing where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
