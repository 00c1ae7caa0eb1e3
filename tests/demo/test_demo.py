"""The whole demonstration, as a user runs it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

REKINDLE = Path(sys.executable).with_name("rekindle")


def processes_of(folder: Path) -> list[psutil.Process]:
    """Processes whose command line names something in the folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in word for word in process.info["cmdline"] or []):
            found.append(process)
    return found


def heed_interrupts() -> None:
    """Tests that run in a shell's background inherit an ignored SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"TMPDIR": str(folder), "COLUMNS": "160"}
    return subprocess.Popen(
        [REKINDLE, "demo"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=heed_interrupts,
    )


@pytest.mark.slow
def test_the_demo_tells_the_whole_story(tmp_path: Path) -> None:
    demo = start(tmp_path)
    said, _ = demo.communicate(timeout=1500)
    assert demo.returncode == 0, said[-3000:]
    assert "Refused:" in said
    assert "Live: library/3 instead of library/5" in said
    assert [home.name for home in tmp_path.iterdir() if (home / "rekindle.db").is_file()]
    assert processes_of(tmp_path) == []


def test_an_interrupted_demo_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = start(tmp_path)
    assert demo.stdout is not None
    for line in demo.stdout:
        if "base model" in line and "small" in line:
            break
    time.sleep(1)
    demo.send_signal(signal.SIGINT)
    demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert [path for path in tmp_path.iterdir() if path.name.startswith("rekindle-demo")] == []
    assert processes_of(tmp_path) == []
