"""What all benchmarks share: where results go, and what they were measured on."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
CACHE = ROOT / ".bench"
SLOTS = 2
"""Cells at a time, of one thread each."""
QUIET = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}
"""Environment of the processes that carry cells out."""
Record = dict[str, Any]
Amount = TypeVar("Amount")


def shared_data() -> Path:
    """The folder with ``models`` and ``data`` that the experiments read."""
    return Path(os.environ.get("REKINDLE_BENCH_DATA", ROOT.parent / "shared"))


def hash_of(facts: Any) -> str:
    """sha256 over the canonical JSON of something."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def code_hash(*more: Path) -> str:
    """sha256 over the code that trains, the settings that it is given, and ``more`` files."""
    return files_hash(*sorted((ROOT / "strategies").rglob("*.py")), ROOT / "orchestrator" / "settings.py", *more)


def files_hash(*paths: Path) -> str:
    """sha256 over files of the project and their places in it."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def commit() -> str | None:
    """The commit, marked if files differ from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


def machine() -> Record:
    """What the figures were measured on."""
    from importlib.metadata import version

    packages = {name: version(name) for name in ("rekindle", "torch", "transformers")}
    return {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count(), **packages}


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def stamped(benchmark: str, found: Record) -> Record:
    """A result with what it was measured on."""
    return {"format": 1, "benchmark": benchmark, **found, "machine": machine(), "commit": commit()}


def write_result(found: Record, path: Path) -> None:
    """Keep a result as JSON, a value a line: indentation would be a quarter of a large one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=0, sort_keys=True) + "\n", encoding="utf-8")
    say(f"wrote {path}")


def result_option(parser: argparse.ArgumentParser) -> None:
    """Where a benchmark's result goes."""
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON results")


def grid_options(parser: argparse.ArgumentParser, presets: Iterable[str]) -> None:
    """Options of the grids: how much is done, with which model, on which data."""
    parser.add_argument("--preset", choices=sorted(presets), default="quick")
    parser.add_argument("--model", type=Path, default=shared_data() / "models" / "base-en", help="base model")
    parser.add_argument("--data", type=Path, default=shared_data() / "data", help="folder of the data sets")
    result_option(parser)


def said(name: str, work: Callable[[], None], *errors: type[Exception]) -> int:
    """Exit status of a benchmark's work: 1 with one line for an error that is named, 130 when it is interrupted."""
    try:
        work()
    except errors as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted; what is done is kept, the same command goes on from there", file=sys.stderr)
        return 130
    return 0


def small_main(
    name: str, presets: Mapping[str, Amount], measure: Callable[[Amount], Record], argv: Sequence[str] | None
) -> int:
    """The command line of a benchmark of minutes: measure as much as a preset says, and write its JSON."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{name}")
    parser.add_argument("--preset", choices=sorted(presets), default="quick")
    result_option(parser)
    given = parser.parse_args(argv)

    def work() -> None:
        found = {"preset": {"name": given.preset}, "measured": measure(presets[given.preset])}
        write_result(stamped(name, found), given.results / f"{name}-{given.preset}.json")

    return said(name, work)
