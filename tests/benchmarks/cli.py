"""Start-up: the command line, the daemon until it answers, its memory. ``python -m tests.benchmarks.cli``."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks import harness
from tests.benchmarks.product import Product

REPEATS = 7
REKINDLE = Path(sys.executable).with_name("rekindle")
COMMANDS = {
    "`rekindle --help`": ("--help",),
    "`rekindle stream list` with a daemon": ("stream", "list"),
    "`rekindle stream list` without one": ("--home", "nowhere", "stream", "list"),
}


def measure() -> dict[str, Any]:
    """Every figure, ``REPEATS`` times, in turn so that a busy moment hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory(prefix="rekindle-bench-") as folder:
        ready, memory = _daemon_starts(Path(folder))
        product = Product(Path(folder) / "home")
        with product.serving():
            for _ in range(REPEATS):
                for name, words in COMMANDS.items():
                    times[name].append(_run_ms(words, product.environment(), Path(folder)))
    measured = {name: {"unit": "ms", "values": values} for name, values in times.items()}
    measured["daemon, from start to ready"] = {"unit": "ms", "values": ready}
    measured["daemon's memory when ready"] = {"unit": "MB", "values": memory}
    return measured


def _run_ms(words: tuple[str, ...], environment: dict[str, str], folder: Path) -> float:
    began = time.perf_counter()
    subprocess.run([REKINDLE, *words], env=environment, cwd=folder, capture_output=True, check=False)
    return (time.perf_counter() - began) * 1000


def _daemon_starts(folder: Path) -> tuple[list[float], list[float]]:
    ready, memory = [], []
    product = Product(folder / "starts")
    for _ in range(REPEATS):
        began = time.perf_counter()
        with product.serving():
            ready.append((time.perf_counter() - began) * 1000)
            who = json.loads((product.home / "daemon.json").read_text())
            memory.append(psutil.Process(who["pid"]).memory_info().rss / 1e6)
    return ready, memory


def main() -> int:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.cli")
    harness.result_option(parser)
    given = parser.parse_args()
    harness.write_result(harness.stamped("cli", {"measured": measure()}), given.results / "cli.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
