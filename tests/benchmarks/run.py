"""All benchmarks, then the report: ``python -m tests.benchmarks.run --preset quick|standard|full``.

Each benchmark is a process of its own; one that fails is named at the end and does not keep the others from running.
Most write their results themselves; what the others print is kept, with commit and machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.harness import RESULTS, ROOT, grid_options, say, stamped, write_result

PRESETS = ("quick", "standard", "full")
PRINTING: dict[str, dict[str, list[str]]] = {
    "overhead": {"quick": ["--quick"]},
    "half_cost": {"quick": ["--quick"]},
    "publish": {"quick": ["--megabytes", "256"]},
    "ingest": {"quick": ["5000"], "standard": ["20000"], "full": ["20000"]},
}
"""Options by preset; none where there is no entry."""


def main(argv: list[str] | None = None) -> int:
    """Run them all; 1 if any failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.run")
    grid_options(parser, PRESETS)
    given = parser.parse_args(argv)
    preset, data, results = ["--preset", given.preset], ["--data", str(given.data)], ["--results", str(given.results)]
    model = ["--model", str(given.model)]
    done = {"cli": _run("cli", results)}
    done |= {name: _keep(name, options.get(given.preset, []), given.results) for name, options in PRINTING.items()}
    main_data = ["--data", str(given.data / "lm_domains")]
    main_preset = ["--preset", "quick" if given.preset == "quick" else "standard"]
    done |= {"main_job": _run("main_job", [*main_preset, *model, *main_data, *results])}
    done |= {name: _run(name, [*preset, *model, *data, *results]) for name in ("domains", "sft")}
    done |= {"mixing_agent": _run("mixing_agent", [*main_preset, *data, *results])}
    done |= {"classes": _run("classes", [*preset, *data, *results])}
    if given.results == RESULTS:
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


def _keep(name: str, options: list[str], results: Path) -> bool:
    """Run a benchmark that prints JSON, and keep it."""
    say(f"== {name}")
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", *options]
    ran = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, check=False
    )
    if ran.returncode != 0:
        return False
    write_result(stamped(name, {"measured": json.loads(ran.stdout)}), results / f"{name}.json")
    return True


if __name__ == "__main__":
    sys.exit(main())
