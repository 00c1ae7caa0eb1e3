"""All benchmarks, then the report: ``python -m tests.benchmarks.run --preset quick|standard``.

Each benchmark is a process of its own; one that fails is named at the end and does not keep the others from running.
``main_job`` and ``cli`` write their results themselves; what the others print is kept, with commit and machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys

from tests.benchmarks.main_job import RESULTS, ROOT, arguments, commit, machine, say

PRINTING: dict[str, dict[str, list[str]]] = {
    "overhead": {"quick": ["--quick"], "standard": []},
    "publish": {"quick": ["--megabytes", "256"], "standard": []},
    "ingest": {"quick": ["5000"], "standard": ["20000"]},
}


def main(argv: list[str] | None = None) -> int:
    """Run them all; 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.run")
    arguments(parser)
    given = parser.parse_args(argv)
    shared = ["--preset", given.preset, "--model", str(given.model), "--data", str(given.data)]
    done = {"cli": _run("cli", [])}
    done |= {name: _keep(name, options[given.preset]) for name, options in PRINTING.items()}
    done |= {"main_job": _run("main_job", shared)}
    done |= {"report": _run("report", [])}
    failed = [name for name, worked in done.items() if not worked]
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _run(name: str, options: list[str]) -> bool:
    say(f"== {name}")
    return (
        subprocess.run([sys.executable, "-m", f"tests.benchmarks.{name}", *options], cwd=ROOT, check=False).returncode
        == 0
    )


def _keep(name: str, options: list[str]) -> bool:
    """Run a benchmark that prints JSON, and keep it."""
    say(f"== {name}")
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", *options]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=False
    )
    if ran.returncode != 0:
        return False
    found = {
        "format": 1,
        "benchmark": name,
        "measured": json.loads(ran.stdout),
        "machine": machine(),
        "commit": commit(),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
    say(f"wrote tests/benchmarks/results/{name}.json")
    return True


if __name__ == "__main__":
    sys.exit(main())
