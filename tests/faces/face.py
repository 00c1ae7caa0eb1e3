"""A daemon with its faces: REST on a real socket, the command line as a real process, toy jobs behind them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from orchestrator import auth
from orchestrator.rest import create_app
from storage import tokens
from storage.database import Database
from tests.flow.harness import BASE, Daemon, write_documents
from tests.flow.toy_job import write_model

COMMAND = (sys.executable, "-P", "-c", "from orchestrator.cli import main; main()")


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code in (0, 3), self.err
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that an error is."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0].removeprefix("error: ")


def run_command(*arguments: str, home: Path, timeout_s: float = 60, **environment: str) -> Done:
    """``rekindle …`` as a user types it."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("REKINDLE")}
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**kept, "REKINDLE_HOME": str(home), **environment},
        stdin=subprocess.DEVNULL,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def heed_interrupts() -> None:
    """Tests that run in a shell's background inherit an ignored SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Face:
    """A served daemon; with ``working`` its loop turns, too."""

    def __init__(self, root: Path, database: Database, *, working: bool = False) -> None:
        self.root = root
        self.daemon = Daemon(root, database)
        self.app = self.daemon.app
        auth.ensure_token_file(self.app)
        self.token = self.app.home.token_file.read_text().strip()
        self.api = create_app(self.app)
        self._server = uvicorn.Server(uvicorn.Config(self.api, port=0, log_config=None, lifespan="off"))
        self._threads = [threading.Thread(target=self._server.run, daemon=True)]
        self._stop = threading.Event()
        if working:
            self._threads.append(threading.Thread(target=self.daemon.engine.run, args=(self._stop,), daemon=True))
        for thread in self._threads:
            thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.app.home.lock_file.write_text(json.dumps({"format": 1, "pid": os.getpid(), "url": self.url}))

    def close(self) -> None:
        self._stop.set()
        self._server.should_exit = True
        self.app.wake.set()
        for thread in self._threads:
            thread.join(timeout=20)
        self.app.background.close()
        if len(self._threads) == 1:
            self.daemon.engine.close()

    def rekindle(self, *arguments: str, timeout_s: float = 60, **environment: str) -> Done:
        return run_command(*arguments, home=self.app.home.root, timeout_s=timeout_s, **environment)

    def data(self, *arguments: str) -> Any:
        """What a command prints as JSON."""
        return self.rekindle(*arguments, "--output", "json").json

    def call(
        self, method: str, path: str, *, body: Any = None, token: str | None = "own", **headers: str
    ) -> tuple[int, Any]:
        """One raw request; ``token`` None sends none."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            given["Authorization"] = f"Bearer {self.token if token == 'own' else token}"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None:
            given.setdefault("Content-Type", "application/json")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.putrequest(method, path, skip_host="Host" in given)
            for name, value in given.items():
                connection.putheader(name, value)
            if data is not None:
                connection.putheader("Content-Length", str(len(data)))
            connection.endheaders(data)
            answer = connection.getresponse()
            return answer.status, _value(answer.read())
        finally:
            connection.close()

    def new_token(self, role: str, name: str | None = None, **values: Any) -> str:
        with self.app.database.write() as session:
            return tokens.create(session, name or f"{role}-1", role, values.get("expires_at"))

    def base(self) -> Path:
        """A toy base model."""
        write_model(self.root / "base", set(BASE.split()))
        return self.root / "base"

    def anchor(self) -> Path:
        return write_documents(self.root / "anchor.jsonl", BASE, 40)

    def add_stream(self, name: str = "news", *more: str) -> Done:
        return self.rekindle(
            "stream", "add", name, "--model", str(self.base()), "--set", f"anchor={self.anchor()}", *more
        )


def _value(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return data.decode()
