"""All benchmarks, then the report: ``python -m tests.benchmarks.run --preset quick|standard``.

Each benchmark is a process of its own; one that fails is named at the end and does not keep the others from running.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.main_job import ROOT, arguments, say

HERE = Path(__file__).parent
OTHERS = ("cli", "overhead", "publish", "ingest")


def main(argv: list[str] | None = None) -> int:
    """Run them all; 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.run")
    arguments(parser)
    given = parser.parse_args(argv)
    shared = ["--preset", given.preset, "--model", str(given.model), "--data", str(given.data)]
    jobs = {name: [] for name in OTHERS if (HERE / f"{name}.py").is_file()} | {"main_job": shared, "report": []}
    failed = [name for name, options in jobs.items() if _run(name, options) != 0]
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _run(name: str, options: list[str]) -> int:
    say(f"== {name}")
    return subprocess.run(
        [sys.executable, "-m", f"tests.benchmarks.{name}", *options], cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
