"""All benchmarks, then the report: ``python -m tests.benchmarks.run --preset quick|standard|full``.

Each benchmark is a process of its own; one that fails is named at the end and does not keep the others from running.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

from tests.benchmarks.harness import RESULTS, ROOT, grid_options, say

PRESETS = ("quick", "standard", "full")
SMALL = ("overhead", "half_cost", "publish", "ingest")
"""Benchmarks of minutes, which have no full preset; nor have the last two below."""


def main(argv: list[str] | None = None) -> int:
    """Run them all; 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.run")
    grid_options(parser, PRESETS)
    given = parser.parse_args(argv)
    preset, data, results = ["--preset", given.preset], ["--data", str(given.data)], ["--results", str(given.results)]
    smaller = ["--preset", "quick" if given.preset == "quick" else "standard"]
    model = ["--model", str(given.model)]
    done = {"cli": _run("cli", results)}
    done |= {name: _run(name, [*smaller, *results]) for name in SMALL}
    main_data = ["--data", str(given.data / "lm_domains")]
    done |= {"main_job": _run("main_job", [*smaller, *model, *main_data, *results])}
    done |= {name: _run(name, [*preset, *model, *data, *results]) for name in ("domains", "sft")}
    done |= {"mixing_agent": _run("mixing_agent", [*smaller, *data, *results])}
    done |= {"classes": _run("classes", [*preset, *data, *results])}
    if given.results == RESULTS:
        done |= {"report": _run("report", [])}
    failed = [name for name, worked in done.items() if not worked]
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _run(name: str, options: list[str]) -> bool:
    say(f"== {name}")
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", *options]
    # Read before torch is imported, so it has to be there when the process starts.
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
