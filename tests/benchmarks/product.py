"""The product as a benchmark drives it: a real daemon, and the command line's JSON."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-P", "-c", "import sys; from orchestrator.cli import main; sys.exit(main())")
START_S = 60.0
STOP_S = 60.0
COMMAND_S = 600.0
POLL_S = 2.0
Record = dict[str, Any]


class ProductError(Exception):
    """A command failed, or the daemon did not come up."""


class Product:
    """Commands against one home."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def ask(self, *words: str) -> Any:
        """Run ``rekindle WORDS --output json``; its JSON, or None where it prints nothing.

        Raises:
            ProductError: it ended with another exit code than 0.
        """
        done = subprocess.run(
            [*COMMAND, *words, "--output", "json"],
            env=self.environment(),
            capture_output=True,
            check=False,
            timeout=COMMAND_S,
        )
        if done.returncode != 0:
            raise ProductError(f"rekindle {' '.join(words)}: {done.stderr.decode(errors='replace').strip()}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    def environment(self) -> dict[str, str]:
        """Only this home: what the user's own settings say of another daemon must not count here."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("REKINDLE")}
        return kept | {"REKINDLE_HOME": str(self.home), "HF_HUB_OFFLINE": "1"}

    @contextlib.contextmanager
    def serving(self) -> Iterator[Product]:
        """A daemon for as long as the block runs; jobs that still run then are adopted by the next one.

        Raises:
            ProductError: it did not come up.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        log = self.home / "serve.out"
        with log.open("wb") as out:
            daemon = subprocess.Popen(
                [*COMMAND, "serve", "--home", str(self.home), "--port", "0"],
                env=self.environment(),
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        try:
            _wait_until_up(daemon, log)
            yield self
        finally:
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(STOP_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(STOP_S)

    def wait_for_base(self, stream: str, *, sets: int, timeout_s: float) -> Record:
        """Version 1, once it is measured on ``sets`` eval sets."""
        return self._wait(lambda: self._base(stream, sets), f"{stream}: measuring the base", timeout_s)

    def _base(self, stream: str, sets: int) -> Record | None:
        shown = self.ask("stream", "show", stream)
        if shown["state"] == "failed":
            raise ProductError(f"{stream}: registration failed: {shown['error']}")
        versions = self.ask("version", "list", stream)
        return versions[0] if versions and len(versions[0]["scores"]) >= sets else None

    def wait_for_decision(self, decision: int, *, timeout_s: float) -> Record:
        """The decision, once it is closed."""
        return self._wait(lambda: self._closed(decision), f"decision {decision}", timeout_s)

    def _closed(self, decision: int) -> Record | None:
        found: Record = self.ask("decision", "show", str(decision))
        return found if found["state"] == "closed" else None

    def _wait(self, look: Any, what: str, timeout_s: float) -> Record:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found: Record | None = look()
            if found is not None:
                return found
            time.sleep(POLL_S)
        raise ProductError(f"{what} took longer than {timeout_s:.0f} s; the daemon's log is {self.home / 'logs'}")


def _wait_until_up(daemon: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and daemon.poll() is None:
        if re.search(r"https?://\S+", log.read_text(errors="replace")):
            return
        time.sleep(0.05)
    raise ProductError(f"the daemon did not start: {log.read_text(errors='replace').strip()[-500:]}")
