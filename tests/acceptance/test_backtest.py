"""A backtest through the real command line: real jobs, both policies side by side, the live version as it was."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests import models
from tests.acceptance.daemon import REKINDLE, Daemon, write_jsonl

pytestmark = pytest.mark.slow
SETTINGS = (
    *("--set", "training.max_steps=15"),
    *("--set", "training.train_batch_size=8"),
    *("--set", "training.max_length=64"),
    *("--set", "training.learning_rate=0.003"),
    *("--set", "gate.mode=record"),
    *("--set", "strategy.name=rewarm-replay"),
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A stream that was retrained on two batches."""
    root = tmp_path_factory.mktemp("backtest")
    made = Daemon(root / "home").start()
    anchor = write_jsonl(root / "anchor.jsonl", models.texts(40))
    model = models.llama(root / "base")
    made.cli("stream", "add", "s", "--model", str(model), "--set", f"anchor={anchor}", *SETTINGS)
    for number in (1, 2):
        made.cli("ingest", "s", str(write_jsonl(root / f"{number}.jsonl", models.texts(40, start=100 * number))))
        made.cli("retrain", "s", "--wait")
    yield made
    made.stop()
    made.kill_jobs()


def live(daemon: Daemon) -> tuple[Path, int, set[str]]:
    published = daemon.home.published
    number = daemon.json("version", "show", "s@live")["number"]
    return (published / "s" / "live").resolve(), number, {one.name for one in published.iterdir()}


def test_another_policy_is_shown_beside_the_recorded_one(daemon: Daemon) -> None:
    before = live(daemon)
    found = daemon.json("stream", "backtest", "s", "--set", "strategy.name=naive")
    assert live(daemon) == before
    assert (found["recorded"]["version"], found["replayed"]["version"]) == (3, 3)
    assert found["replayed"]["strategies"] == {"naive": 2}
    assert found["replayed"]["tokens"] == found["recorded"]["tokens"] == 2 * 15 * 8 * 64
    assert found["replayed"]["train_seconds"] > 0
    scores = daemon.json("version", "show", "s@live")["scores"]
    assert {one["eval_set"]: one["recorded"] for one in found["sets"]} == scores
    assert all(one["change"] not in (None, 0.0) for one in found["sets"])
    assert [one["name"] for one in daemon.json("stream", "list")] == ["s"]


def test_the_recorded_policy_comes_to_the_same_once_more(daemon: Daemon) -> None:
    found = daemon.json("stream", "backtest", "s")
    assert found["replayed"]["strategies"] == found["recorded"]["strategies"] == {"rewarm-replay": 2}
    assert [one["change"] for one in found["sets"]] == [0.0] * 3
    assert all(one["recorded_forgetting"] == one["replayed_forgetting"] for one in found["sets"])


def test_ctrl_c_keeps_what_was_begun(daemon: Daemon, tmp_path: Path) -> None:
    before, said = live(daemon), tmp_path / "said"
    with said.open("w") as errors:
        running = subprocess.Popen(
            [*REKINDLE, "stream", "backtest", "s", "--set", "strategy.name=half-finetune"],
            env=os.environ | {"REKINDLE_HOME": str(daemon.home.root)},
            stdout=subprocess.DEVNULL,
            stderr=errors,
            # A test run in the background of a shell has SIGINT ignored, and hands that on.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )
    daemon.wait(said.read_text)
    running.send_signal(signal.SIGINT)
    assert running.wait(120) == 130
    (scratch,) = (one["name"] for one in daemon.json("stream", "list") if one["name"] != "s")
    left = f"stopped waiting; {scratch} stays: the same command goes on from there"
    assert said.read_text().splitlines()[-1].startswith(left)
    daemon.cli("stream", "remove", scratch, "--purge")
    daemon.wait(lambda: not daemon.job_pids())
    assert live(daemon) == before
