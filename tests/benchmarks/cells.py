"""The cells of a grid: kept by all that they follow from, made by processes of one thread."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any, Protocol, TypeGuard

from tests.benchmarks.harness import QUIET, SLOTS, Record, code_hash, commit, hash_of, machine, say

DRIVERS = ("batches", "exact", "line", "lineup", "mos_released", "nearest_mean")
"""Modules beside this one that a worker's cells follow from, like the code that trains and the cells' own module."""
GROUPS = ("tuning", "cells", "references")
"""Where each part of a grid's result has its cells."""
EARLIER = "earlier"
"""Where a result has the cells that none of its parts names any more."""
ANY_CODE = "REKINDLE_BENCH_ANY_CODE"
"""Set where a grid takes cells that earlier code made; each says which commit that was."""


class Cells:
    """Results of cells by the hash of all that they follow from: an interrupted run goes on where it was.

    What other code makes anew is kept beside what was there. A grid's result holds its cells, each with its hash: so a
    larger run goes on from a smaller one's result as well.
    """

    def __init__(self, place: Path) -> None:
        self._folder = place / "cells"

    def kept(self, facts: Any, make: Callable[[str], Record]) -> Record:
        """The cell that ``facts`` name: read, or made by ``make(key)`` and kept."""
        found = self.find(facts)
        if found is None:
            key = hash_of(facts)
            found = make(key)
            self.keep(key, found)
        return found

    def find(self, facts: Any, *, code: str | None = None) -> Record | None:
        """The cell that ``facts`` name: the one that ``code`` made, else the newest."""
        found = [(_read(path), path.stat().st_mtime) for path in self._folder.glob(f"{hash_of(facts)}*.json")]
        rank = lambda one: (one[0].get("code") == code, one[0].get("made_at", ""), one[1])  # noqa: E731
        return max(found, key=rank)[0] if found else None

    def keep(self, key: str, cell: Record) -> Path:
        """Write a cell; the file that has it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(key, cell)
        path.with_suffix(".part").write_text(json.dumps(cell, indent=1), encoding="utf-8")
        path.with_suffix(".part").replace(path)
        return path

    def take(self, result: Record) -> None:
        """Keep the cells of an earlier result too, with the machine that it was measured on; but for those that failed,
        which may be tried again elsewhere."""
        on = {"machine": result["machine"]} if "machine" in result else {}
        for one in cells_of(result):
            if "key" in one and worked(one) and not self._path(one["key"], one).is_file():
                self.keep(one["key"], {**on, **one})

    def _path(self, key: str, cell: Record) -> Path:
        code = cell.get("code")
        return self._folder / (f"{key}-{code[:16]}.json" if code else f"{key}.json")


def cells_of(result: Record) -> Iterator[Record]:
    """Every cell of a grid's result."""
    for part in (one for one in result.values() if isinstance(one, dict)):
        for group in GROUPS:
            yield from part.get(group, ())
    yield from result.get(EARLIER, ())


def worked(cell: Record | None) -> TypeGuard[Record]:
    """Whether there is a cell, and it was carried out to its end."""
    return cell is not None and "failed" not in cell


class Work(Protocol):
    """A cell's work, as a worker process is handed it: plain values only."""

    @property
    def title(self) -> str: ...

    @property
    def named(self) -> Record:
        """What tells the cell from the others of its grid."""

    def facts(self) -> Any: ...

    def carry_out(self, folder: Path) -> Record: ...


Carry = Callable[[Sequence[Work], Path], Sequence[Record | None]]
"""How the cells of a grid are had: :func:`carry_out_all`, or :func:`kept_of`."""


def carry_out_all(work: Sequence[Work], place: Path) -> list[Record]:
    """Every cell's result, in order; what is not kept is made by :data:`SLOTS` processes of one thread."""
    os.environ.update(QUIET)
    by = {"code": code_of(work), "commit": commit(), "machine": machine()}
    with ProcessPoolExecutor(SLOTS, mp_context=get_context("spawn"), initializer=_begin) as pool:
        made: list[Future[Record]] = [pool.submit(one_of, one, place, by) for one in work]
        try:
            return [one.result() for one in made]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in active_children():
                process.terminate()
            raise


def kept_of(work: Sequence[Work], place: Path) -> list[Record | None]:
    """Every cell's result, in order, that of this code if there is one; None for what is not kept."""
    cells, code = Cells(place), code_of(work)
    return [cells.find(one.facts(), code=code) for one in work]


def code_of(work: Sequence[Work]) -> str:
    """sha256 over the code that cells follow from."""
    drivers = {Path(__file__).with_name(f"{name}.py") for name in DRIVERS}
    return code_hash(*sorted(drivers | {Path(inspect.getfile(type(one))) for one in work}))


def one_of(work: Work, place: Path, by: Mapping[str, Any]) -> Record:
    """A cell, kept or made; ``by`` has the code that makes it."""
    cells, facts = Cells(place), work.facts()
    found = cells.find(facts, code=by["code"])
    if found is not None and (found.get("code") == by["code"] or (ANY_CODE in os.environ and worked(found))):
        return found
    key = hash_of(facts)
    made_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    made = {"cell": work.named, **_made(work, place / "work" / key[:16]), "key": key, "made_at": made_at, **by}
    path = cells.keep(key, made)
    if not worked(made):
        say(f"{work.title} failed: {made['failed']}; remove {path} to try it again")
    return made


def _made(work: Work, folder: Path) -> Record:
    """What a cell comes to, or how it failed: one that cannot be carried out does not keep the others from it."""
    began, spent = time.monotonic(), time.process_time()
    try:
        found = work.carry_out(folder)
    except Exception as error:
        traceback.print_exc(limit=20)
        shutil.rmtree(folder, ignore_errors=True)
        found = {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    seconds, cpu_s = time.monotonic() - began, time.process_time() - spent
    say(f"{work.title}: {seconds:.0f} s, {cpu_s:.0f} s of a core")
    return {**found, "seconds": round(seconds, 1), "cpu_s": round(cpu_s, 1)}


def _begin() -> None:
    """Import what cells need before a clock runs, and see to it that the worker ends with its parent.

    Without a parent it would finish its cell for nobody, and then wait for ever. Ctrl-C reaches the whole group; what
    is to be said of it the parent says.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import peft  # noqa: F401

    from strategies.jobs import evaluate, measure, train  # noqa: F401


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _read(path: Path) -> Record:
    found: Record = json.loads(path.read_text(encoding="utf-8"))
    return found
