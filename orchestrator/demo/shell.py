"""The demonstration's hands: the ``rekindle`` command as a user types it, and the daemon as a process of its own."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.errors import RekindleError
from storage.states import JOB_UNFINISHED

START_S = 30.0
STOP_S = 20.0
COMMAND_S = 900.0
COMMAND = (sys.executable, "-P", "-c", "import sys; from orchestrator.cli import main; sys.exit(main())")


class DemoError(RekindleError):
    """The demonstration did not go as told."""


class Shell:
    """Runs commands against one home and shows each before it runs."""

    def __init__(self, home: Path, console: Console) -> None:
        self.home = home
        self.console = console
        self._daemon: subprocess.Popen[bytes] | None = None

    def start_daemon(self) -> str:
        """Serve the home on a free port; its URL.

        Raises:
            DemoError: the daemon ended, or is not up in time.
        """
        self._announce(("serve", "--home", str(self.home), "--port", "0"))
        log = self.home / "logs" / "serve.out"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            # A session of its own: Ctrl-C reaches the demonstration alone, which then stops the daemon in good order.
            self._daemon = subprocess.Popen(
                [*COMMAND, "serve", "--home", str(self.home), "--port", "0"],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self._wait_for_url(log)

    def _wait_for_url(self, log: Path) -> str:
        assert self._daemon is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            found = re.search(r"https?://\S+", log.read_text(errors="replace"))
            if found:
                return found.group()
            if self._daemon.poll() is not None:
                break
            time.sleep(0.1)
        raise DemoError(f"the daemon did not start: {log.read_text(errors='replace').strip()[-500:]}")

    @property
    def daemon_pid(self) -> int | None:
        """The daemon's process, while it runs."""
        return self._daemon.pid if self._daemon is not None and self._daemon.poll() is None else None

    def stop_daemon(self) -> None:
        """Cancel what runs, so that no job outlives the demonstration, then end the daemon."""
        if self._daemon is None or self._daemon.poll() is not None:
            return
        self._cancel_jobs()
        self._daemon.send_signal(signal.SIGTERM)
        try:
            self._daemon.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait(STOP_S)

    def _cancel_jobs(self) -> None:
        for _ in range(int(STOP_S)):
            active = [job for job in self.try_ask("job", "list") or [] if job["state"] in JOB_UNFINISHED]
            if not active:
                return
            for job in active:
                self.try_ask("job", "cancel", str(job["id"]))
            time.sleep(1)

    def show(self, *words: str) -> int:
        """Run a command in the open; its exit code."""
        self._announce(words)
        done = subprocess.run([*COMMAND, *words], env=self._environment(), check=False, timeout=COMMAND_S)
        self.console.print()
        return done.returncode

    def must(self, *words: str) -> None:
        """As :meth:`show`, for a command that has to succeed.

        Raises:
            DemoError: it did not.
        """
        code = self.show(*words)
        if code != 0:
            raise DemoError(f"`rekindle {shlex.join(words)}` ended with exit code {code}")

    def ask(self, *words: str) -> Any:
        """Run a command unseen for its JSON.

        Raises:
            DemoError: it did not succeed.
        """
        done = self._quiet(words)
        if done.returncode != 0:
            raise DemoError(f"`rekindle {shlex.join(words)}` failed: {done.stderr.decode(errors='replace').strip()}")
        return json.loads(done.stdout)

    def try_ask(self, *words: str) -> Any | None:
        """As :meth:`ask`; None if it fails."""
        try:
            return self.ask(*words)
        except DemoError:
            return None

    def _quiet(self, words: tuple[str, ...]) -> subprocess.CompletedProcess[bytes]:
        command = [*COMMAND, *words, "--output", "json"]
        return subprocess.run(command, env=self._environment(), capture_output=True, check=False, timeout=COMMAND_S)

    def _environment(self) -> dict[str, str]:
        """Only this home: what the user's own settings say of another daemon must not count here."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("REKINDLE")}
        return kept | {"REKINDLE_HOME": str(self.home)}

    def _announce(self, words: tuple[str, ...]) -> None:
        self.console.print(f"[bold cyan]$[/] [bold]rekindle {shlex.join(words)}[/]", highlight=False, soft_wrap=True)
