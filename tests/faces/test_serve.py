"""The daemon as a process: how it starts, refuses to, and ends; and what works without it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from storage.database import Database, now
from storage.tables import Trigger
from tests.faces.face import COMMAND, run_command
from tests.storage import rows


@contextmanager
def served(home: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A daemon on a free port; the value has it running and announced."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("REKINDLE")}
    running = subprocess.Popen(
        [*COMMAND, "serve", "--home", str(home), "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**kept, **environment},
    )
    try:
        assert running.stdout is not None
        said = re.search(r"rekindle serves .* at (http://127\.0\.0\.1:\d+)", running.stdout.readline())
        assert said
        with urllib.request.urlopen(f"{said[1]}/healthz", timeout=30) as answer:
            assert answer.read() == b"ok"
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=40)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("served") / "home"
    with served(place):
        yield place


def test_a_daemon_answers_and_only_on_loopback(home: Path) -> None:
    shown = run_command("doctor", "--output", "json", home=home, timeout_s=240)
    assert {one["check"]: one["ok"] for one in json.loads(shown.out)} == dict.fromkeys(
        ("home", "database", "records", "artifacts", "daemon", "disk", "jobs"), True
    )
    pid = json.loads((home / "daemon.json").read_text())["pid"]
    listening = [one.laddr.ip for one in psutil.Process(pid).net_connections() if one.status == psutil.CONN_LISTEN]
    assert listening == ["127.0.0.1"]


def test_what_the_daemon_makes_is_its_owners_alone(home: Path) -> None:
    for path in (home, home / "token", home / "artifacts", home / "spool"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_second_daemon_on_the_home_is_refused_with_the_first_one_named(home: Path) -> None:
    done = run_command("serve", "--port", "0", home=home)
    assert done.code == 1
    first = json.loads((home / "daemon.json").read_text())
    assert f"pid {first['pid']}, {first['url']}" in done.error


def test_a_port_in_use_is_one_line(home: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run_command("serve", "--port", str(taken.getsockname()[1]), home=tmp_path)
    assert done.code == 1
    assert "is in use; choose another with --port" in done.error


def test_a_home_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run_command("serve", "--port", "0", home=tmp_path / "file" / "home")
    assert done.code == 1
    assert "cannot be written" in done.error


def test_a_wrong_variable_stops_the_start(tmp_path: Path) -> None:
    done = run_command("serve", home=tmp_path / "home", REKINDLE__SERVER__PROT="1")
    assert (done.code, "did you mean REKINDLE__SERVER__PORT?" in done.error) == (2, True)
    assert not (tmp_path / "home").exists()


def test_a_database_of_an_unknown_kind_is_one_line_without_its_password(tmp_path: Path) -> None:
    done = run_command("serve", "--port", "0", "--database-url", "mysql://u:hunter2@h/x", home=tmp_path / "home")
    assert done.code == 1
    assert "cannot use a database of kind mysql" in done.error
    assert "hunter2" not in done.err


def test_the_schema_is_not_upgraded_under_a_daemon(home: Path) -> None:
    done = run_command("db", "upgrade", home=home)
    assert done.code == 1
    assert "stop it, then upgrade" in done.error


def test_a_database_is_upgraded_where_no_daemon_runs(tmp_path: Path) -> None:
    assert run_command("db", "upgrade", home=tmp_path).out == "the database is up to date\n"
    database = Database.open(f"sqlite:///{tmp_path / 'rekindle.db'}")
    database.check_schema()
    database.close()


def test_doctor_says_what_is_wrong_and_exits_with_one(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert run_command("db", "upgrade", home=home).code == 0
    home.chmod(0o755)
    done = run_command("doctor", *(f"--check={name}" for name in ("home", "database", "daemon")), home=home)
    assert done.code == 1
    assert f"chmod go-rwx {home}" in done.out
    assert "FAIL  daemon: no daemon serves" in done.out
    assert "ok    database" in done.out


def test_doctor_finds_a_damaged_artifact_and_an_altered_row(tmp_path: Path) -> None:
    from storage import events, manifests
    from storage.artifacts import ArtifactStore

    assert run_command("db", "upgrade", home=tmp_path).code == 0
    store = ArtifactStore(tmp_path / "artifacts")
    database = Database.open(f"sqlite:///{tmp_path / 'rekindle.db'}")
    with database.write() as session:
        stored = store.add_bytes(b"precious")
        manifests.register_object(session, stored)
        event = events.record(session, stream_id=None, subject="x", subject_id=1, action="a", actor="t", reason="r")
        session.flush()
        event.reason = "another"
    database.close()
    store.path(stored.hash).chmod(0o600)
    store.path(stored.hash).write_bytes(b"previous")
    shown = run_command("doctor", "--check", "artifacts", "--check", "records", "-o", "json", home=tmp_path)
    assert [(one["check"], one["ok"]) for one in json.loads(shown.out)] == [("records", False), ("artifacts", False)]


def test_a_check_that_does_not_exist_is_one_line_with_those_that_do(tmp_path: Path) -> None:
    done = run_command("doctor", "--check", "weather", home=tmp_path)
    assert done.code == 2
    assert "home, database, records" in done.error


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_daemon_ends_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    with served(tmp_path / "home") as running:
        begun = time.monotonic()
        running.send_signal(number)
        out, _ = running.communicate(timeout=40)
        assert time.monotonic() - begun < 20
    assert running.returncode == 0
    assert "Traceback" not in out


def test_secrets_of_the_environment_are_written_nowhere(tmp_path: Path) -> None:
    canaries = {f"CANARY_{n}": f"canary-value-{n}-5f1d" for n in range(20)}
    home = tmp_path / "home"
    with served(home, **canaries):
        run_command("stream", "add", "news", "--model", "/no/model", home=home)
        run_command("token", "create", "ci", home=home)
        token = (home / "token").read_bytes().strip()
    for path in home.rglob("*"):
        if path.is_file() and path.name != "token":
            data = path.read_bytes()
            assert b"canary-value" not in data, path
            assert token not in data, path


def test_doctor_names_a_step_that_keeps_failing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert run_command("db", "upgrade", home=home).code == 0
    database = Database.open(f"sqlite:///{home / 'rekindle.db'}")
    with database.write() as session:
        stream = rows.add_stream(session)
        broken = {"kind": "moon", "settings": {"kind": "moon"}, "timezone": "UTC", "created_at": now()}
        session.add(Trigger(stream_id=stream.id, name="t", state="active", **broken))
    database.close()
    with served(home):
        shown = run_command("doctor", "--check", "daemon", "--output", "json", home=home)
    (daemon,) = json.loads(shown.out)
    assert not daemon["ok"]
    assert "its step trigger keeps failing" in daemon["message"]
