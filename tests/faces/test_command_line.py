"""How the command line behaves: help, start-up, one-line errors, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer

from orchestrator import cli
from orchestrator.cli import retrain
from orchestrator.cli.base import OPTIONS, Options
from tests.faces.face import COMMAND, Face, heed_interrupts, run_command
from tests.faces.rows import add_job, add_stream

HEAVY = (
    "sqlalchemy",
    "fastapi",
    "pydantic",
    "pydantic_settings",
    "structlog",
    "numpy",
    "pyarrow",
    "torch",
    "rich",
    "yaml",
)


@pytest.fixture(autouse=True)
def _fresh_options() -> Iterator[None]:
    yield
    OPTIONS.__dict__.update(Options().__dict__)


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with its words."""
    group = group or typer.main.get_command(cli.app)
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, (*path, name))
        else:
            yield (*path, name), one


@pytest.mark.parametrize("words", [words for words, _ in commands()], ids=" ".join)
def test_every_command_has_help_with_an_example_of_itself(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*words, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"rekindle {' '.join(words)}" in text.split("Examples:")[1]
    assert "--home" in text


def test_the_commands_are_those_that_scripts_rely_on() -> None:
    groups: dict[str, set[str]] = {}
    for words, _ in commands():
        groups.setdefault(words[0], set()).add(" ".join(words[1:]))
    assert groups["stream"] == {
        *("add", "list", "show", "set", "rebase", "pause", "resume", "remove", "release-batches", "schema"),
        "backtest",
    }
    assert groups["version"] == {"list", "show", "lineage", "matrix", "compare", "promote", "export"}
    assert groups["job"] == {"list", "show", "logs", "cancel", "retry"}
    assert groups["batch"] == {"list", "show", "hold", "release"}
    assert groups["trigger"] == {"list", "pause", "resume", "test"}
    assert groups["decision"] == {"list", "show"}
    assert groups["strategy"] == {"list", "show"}
    assert groups["mixing"] == {"collect", "train", "evaluate", "export", "graph"}
    assert groups["token"] == {"create", "list", "revoke"}
    single = {"serve", "demo", "ingest", "retrain", "evaluate", "rollback", "merge", "gc", "doctor", "backup", "db"}
    assert groups.keys() >= single


@pytest.mark.parametrize("arguments", [["--help"], ["version", "list", "news"], ["stream", "add", "x", "--model", "y"]])
def test_a_command_imports_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    code = (
        "import sys; from orchestrator import cli; cli.run(sys.argv[1:]);"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    environment = {**os.environ, "REKINDLE_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments], capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["strem"], "No such command 'strem'"),
        (["retrain"], "Missing argument"),
        (["version", "list", "News!"], "'News!' does not name a version"),
        (["version", "compare", "a/1", "b/2"], "different streams"),
        (["version", "promote", "news", "--reason", "x"], "write news/3"),
        (["version", "list", "a", "--output", "xml"], "choose text or json"),
        (["job", "show", "seven"], "not a valid int"),
        (["rollback", "news"], "--reason"),
        (["ingest", "news", "no-such-file"], "there is no file no-such-file"),
        (["stream", "add", "news", "--model", "m", "--every", "6x"], "write 90s, 30m, 6h or 1d"),
        (["stream", "add", "news", "--model", "m", "--every", "6h", "--cron", "* * * * *"], "exclude each other"),
        (["stream", "add", "news", "--set", "training"], "write key.path=value"),
        (["stream", "set", "news"], "nothing to set"),
        (["serve", "--host", "0.0.0.0"], "--allow-remote and --allowed-host"),
        (["serve", "--host", "0.0.0.0", "--allow-remote"], "--allow-remote and --allowed-host"),
    ],
)
def test_a_usage_error_is_one_line_and_exits_with_two(arguments: list[str], said: str, tmp_path: Path) -> None:
    done = run_command(*arguments, home=tmp_path)
    assert done.code == 2
    assert said in done.error


def test_where_no_daemon_runs_it_says_how_to_start_one(tmp_path: Path) -> None:
    done = run_command("stream", "list", home=tmp_path)
    assert done.code == 1
    assert f"start one with `rekindle serve --home {tmp_path}`" in done.error


def test_a_daemon_that_died_is_no_daemon(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    (tmp_path / "daemon.json").write_text(json.dumps({"pid": 1, "url": "http://127.0.0.1:9"}))
    done = run_command("stream", "list", home=tmp_path)
    assert "no daemon answers at http://127.0.0.1:9; start one" in done.error


def test_a_traceback_comes_only_with_debug(tmp_path: Path) -> None:
    assert "Traceback" in run_command("stream", "list", "--debug", home=tmp_path).err
    assert "Traceback" not in run_command("stream", "list", home=tmp_path).err


def test_the_home_may_stand_before_or_after_the_command(face: Face, tmp_path: Path) -> None:
    home, elsewhere = str(face.app.home.root), tmp_path / "elsewhere"
    assert run_command("--home", home, "stream", "list", home=elsewhere).code == 0
    assert run_command("stream", "list", "--home", home, home=elsewhere).code == 0


def test_url_and_token_may_come_from_the_environment(face: Face, tmp_path: Path) -> None:
    done = run_command(
        "stream", "list", "--output", "json", home=tmp_path, REKINDLE_URL=face.url, REKINDLE_TOKEN=face.token
    )
    assert done.json == []


@pytest.mark.parametrize(
    ("token", "said"), [("rk_wrong", "unknown, revoked or expired"), ("", "cannot be read; set REKINDLE_TOKEN")]
)
def test_a_missing_or_wrong_token_is_one_line(face: Face, token: str, said: str) -> None:
    face.app.home.token_file.unlink()
    done = face.rekindle("stream", "list", REKINDLE_TOKEN=token)
    assert done.code == 1
    assert said in done.error


def test_something_else_at_the_url_is_named(tmp_path: Path) -> None:
    done = run_command("stream", "list", home=tmp_path, REKINDLE_URL="ftp://x", REKINDLE_TOKEN="t")
    assert "write http://HOST:PORT" in done.error


def test_the_version_needs_no_daemon(tmp_path: Path) -> None:
    done = run_command("--version", home=tmp_path)
    assert (done.code, done.out) == (0, f"rekindle {metadata.version('rekindle')}\n")


def test_the_schema_needs_no_daemon(tmp_path: Path) -> None:
    schema = json.loads(run_command("stream", "schema", home=tmp_path).out)
    assert schema["properties"].keys() >= {"name", "task", "model", "gate", "strategy"}
    assert schema["additionalProperties"] is False


def test_control_characters_do_not_reach_the_terminal(face: Face) -> None:
    done = face.rekindle("version", "list", "\x1b[31mred")
    assert "\x1b" not in done.err + done.out
    assert "\\x1b" in done.err


def test_an_interrupt_is_quiet(face: Face) -> None:
    with face.app.database.write() as session:
        add_stream(session)
        add_job(session, state="queued")
    environment = {**os.environ, "REKINDLE_HOME": str(face.app.home.root)}
    running = subprocess.Popen(
        [*COMMAND, "job", "logs", "-f", "1"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    time.sleep(3)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=60)
    assert (running.returncode, err) == (130, "")


def test_an_interrupted_wait_says_what_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(retrain, "post", lambda *_: {"decision": {"id": 7}})
    monkeypatch.setattr(retrain, "get", interrupted)
    assert cli.run(["retrain", "news", "--wait"]) == 130
    said = "stopped waiting; decision 7 goes on; `rekindle decision show 7` says how far it is\n"
    assert capsys.readouterr().err == said


def test_a_reader_that_goes_away_is_no_error(face: Face) -> None:
    command = " ".join(f"'{part}'" for part in COMMAND) + " stream schema | head -1 >/dev/null; echo ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert "Traceback" not in done.stderr
    assert done.stderr == ""
