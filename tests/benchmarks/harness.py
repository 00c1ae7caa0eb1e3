"""What all benchmarks share: where results go, what they were measured on, and cells that are kept."""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tests.benchmarks.inputs import Missing

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
CACHE = ROOT / ".bench"
SLOTS = 2
"""Cells at a time, of one thread each."""
DRIVERS = ("batches", "exact", "line", "lineup", "mos_released", "nearest_mean")
"""Modules beside this one that a worker's cells follow from, like the code that trains and the cells' own module."""
QUIET = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}
"""Environment of the processes that carry cells out."""
GROUPS = ("tuning", "cells", "references")
"""Where each part of a grid's result has its cells."""
ANY_CODE = "REKINDLE_BENCH_ANY_CODE"
"""Set where a grid takes cells that earlier code made; each says which commit that was."""
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
    """Keep a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
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


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str: ...


class Grid(Protocol):
    """The result of one preset of a grid, given the folders of the model and of the data, and how its cells are had."""

    def __call__(self, model: Path, data: Path, preset: Any, *, carry: Carry) -> Record: ...


def grid_main(
    name: str,
    presets: Mapping[str, Any],
    measure: Grid,
    argv: Sequence[str] | None,
    *,
    arms: Iterable[Named],
    parts: Sequence[str] = (),
    model: Callable[[], Path] | None = None,
) -> int:
    """The command line of a grid: run a preset, or some of it, and write its JSON; ``model`` finds one by itself.

    The JSON has all of the preset that has been carried out by now, so that a grid may be run arm by arm.
    """
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{name}")
    grid_options(parser, presets)
    parser.add_argument("--seeds", type=int, default=None, metavar="N", help="only the preset's first N seeds")
    parser.add_argument("--arm", action="append", choices=[arm.name for arm in arms], help="only this one; repeatable")
    parser.add_argument(
        "--any-code", action="store_true", help="take kept cells whichever code made them, not this commit's alone"
    )
    if parts:
        parser.add_argument("--part", action="append", choices=parts, help="only this one; repeatable")
    if model is not None:
        parser.set_defaults(model=None)
    given = parser.parse_args(argv)
    if given.any_code:
        os.environ[ANY_CODE] = "1"
    preset = presets[given.preset]
    asked = replace(
        preset,
        seeds=preset.seeds[: given.seeds],
        arms=tuple(given.arm or preset.arms),
        parts=tuple((parts and given.part) or preset.parts),
    )

    def work() -> None:
        chosen: Path = given.model if model is None or given.model else model()
        result = given.results / f"{name}-{given.preset}.json"
        Cells(CACHE / name / preset.name).take(result)
        model_and_data = chosen.absolute(), given.data.absolute()
        measure(*model_and_data, asked, carry=carry_out_all)
        write_result(stamped(name, measure(*model_and_data, preset, carry=kept_of)), result)

    return said(name, work, Missing)


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


class Cells:
    """Results of cells by the hash of all that they follow from: an interrupted run goes on where it was.

    A grid's result holds its cells, each with its hash: so a larger run goes on from a smaller one's result as well.
    """

    def __init__(self, place: Path) -> None:
        self._folder = place / "cells"

    def kept(
        self, facts: Any, make: Callable[[str], Record], *, fits: Callable[[Record], bool] = lambda _: True
    ) -> Record:
        """The cell that ``facts`` name: read if it ``fits``, or made by ``make(key)`` and kept."""
        found = self.find(facts, fits=fits)
        if found is None:
            key = hash_of(facts)
            found = make(key)
            self._keep(self._path(key), found)
        return found

    def find(self, facts: Any, *, fits: Callable[[Record], bool]) -> Record | None:
        """The cell that ``facts`` name, if it is kept and ``fits``."""
        path = self._path(hash_of(facts))
        if not path.is_file():
            return None
        found: Record = json.loads(path.read_text(encoding="utf-8"))
        return found if fits(found) else None

    def take(self, result: Path) -> None:
        """Keep the cells of an earlier result too, where there is one; those that are kept already stay as they are."""
        if not result.is_file():
            return
        parts = [one for one in json.loads(result.read_text(encoding="utf-8")).values() if isinstance(one, dict)]
        for one in (one for part in parts for group in GROUPS for one in part.get(group, ())):
            if "key" in one and not (path := self._path(one["key"])).is_file():
                self._keep(path, one)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.json"

    def _keep(self, path: Path, cell: Record) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".part").write_text(json.dumps(cell, indent=1), encoding="utf-8")
        path.with_suffix(".part").replace(path)


class Work(Protocol):
    """A cell's work, as a worker process is handed it: plain values only."""

    @property
    def title(self) -> str: ...

    def facts(self) -> Any: ...

    def carry_out(self, folder: Path) -> Record: ...


Carry = Callable[[Sequence[Work], Path], Sequence[Record | None]]
"""How the cells of a grid are had: :func:`carry_out_all`, or :func:`kept_of`."""


def carry_out_all(work: Sequence[Work], place: Path) -> list[Record]:
    """Every cell's result, in order; what is not kept is made by :data:`SLOTS` processes of one thread."""
    os.environ.update(QUIET)
    code = {"code": _code_of(work), "commit": commit()}
    with ProcessPoolExecutor(SLOTS, mp_context=get_context("spawn"), initializer=_end_with_parent) as pool:
        made: list[Future[Record]] = [pool.submit(_one, one, place, code) for one in work]
        try:
            return [one.result() for one in made]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
            raise


def kept_of(work: Sequence[Work], place: Path) -> list[Record | None]:
    """Every cell's result, in order; None for what is not kept."""
    cells, code = Cells(place), _code_of(work)
    return [cells.find(one.facts(), fits=partial(_fits, code)) for one in work]


def _code_of(work: Sequence[Work]) -> str:
    drivers = {Path(__file__).with_name(f"{name}.py") for name in DRIVERS}
    return code_hash(*sorted(drivers | {Path(inspect.getfile(type(one))) for one in work}))


def _fits(code: str, cell: Record) -> bool:
    return cell["code"] == code or ANY_CODE in os.environ


def _end_with_parent() -> None:
    """A worker whose parent was killed would otherwise finish its cell for nobody, and then wait for ever.

    Ctrl-C reaches the whole group; what is to be said of it the parent says.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _one(work: Work, place: Path, code: Mapping[str, Any]) -> Record:
    def make(key: str) -> Record:
        began, spent = time.monotonic(), time.process_time()
        found = work.carry_out(place / "work" / key[:16])
        seconds, cpu_s = time.monotonic() - began, time.process_time() - spent
        say(f"{work.title}: {seconds:.0f} s, {cpu_s:.0f} s of a core")
        cost = {"seconds": round(seconds, 1), "cpu_s": round(cpu_s, 1)}
        return {**found, **cost, "key": key, **code}

    return Cells(place).kept(work.facts(), make, fits=partial(_fits, code["code"]))
