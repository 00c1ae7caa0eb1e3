"""The command line of a grid: a benchmark of many cells, of which a run may carry out some."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from tests.benchmarks.cells import ANY_CODE, EARLIER, Carry, Cells, carry_out_all, cells_of, kept_of
from tests.benchmarks.harness import CACHE, Record, grid_options, hash_of, said, stamped, write_result
from tests.benchmarks.inputs import Missing, require


class Busy(Exception):
    """Another run of the same preset is going on."""


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str: ...


class Measure(Protocol):
    """The result of one preset of a grid, given the folders of the model and of the data, and how its cells are had."""

    def __call__(self, model: Path, data: Path, preset: Any, *, carry: Carry) -> Record: ...


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A benchmark of many cells."""

    name: str
    presets: Mapping[str, Any]
    measure: Measure
    needs: Callable[[Path, Path, Any], Iterable[Path]]
    """Files of the model and of the data that a preset reads, in all of its parts."""
    arms: Sequence[Named]
    parts: Sequence[str] = ()
    model: Callable[[], Path] | None = None
    """Finds the model where none is given."""


def main(grid: Grid, argv: Sequence[str] | None) -> int:
    """Run a preset, or some of it, and write its JSON; exit status 1 with one line if it cannot be begun.

    The JSON has all of the preset that has been carried out by now, so that a grid may be run arm by arm.
    """
    parser = _options(grid)
    given = parser.parse_args(argv)
    if given.any_code:
        os.environ[ANY_CODE] = "1"
    preset = grid.presets[given.preset]
    for option, some, of in (("--arm", given.arm, preset.arms), ("--part", grid.parts and given.part, preset.parts)):
        if of and not set(some or ()) <= set(of):
            parser.error(f"{option}: {given.preset} has {', '.join(of)}; choose of these, or another preset")
    asked = replace(
        preset,
        seeds=preset.seeds[: given.seeds],
        arms=tuple(given.arm or preset.arms),
        parts=tuple((grid.parts and given.part) or preset.parts),
    )

    def work() -> None:
        chosen: Path = given.model if grid.model is None or given.model else grid.model()
        model, data = chosen.absolute(), given.data.absolute()
        require(grid.needs(model, data, preset))
        result = given.results / f"{grid.name}-{given.preset}.json"
        place = CACHE / grid.name / preset.name
        with alone(place):
            before: Record = json.loads(result.read_text(encoding="utf-8")) if result.is_file() else {}
            Cells(place).take(before)
            grid.measure(model, data, asked, carry=carry_out_all)
            found = grid.measure(model, data, preset, carry=kept_of)
            write_result(stamped(grid.name, with_earlier(found, before)), result)

    return said(grid.name, work, Missing, Busy)


def _options(grid: Grid) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{grid.name}")
    grid_options(parser, grid.presets)
    parser.add_argument("--seeds", type=int, default=None, metavar="N", help="only the preset's first N seeds")
    names = [arm.name for arm in grid.arms]
    parser.add_argument("--arm", action="append", choices=names, help="only this one; repeatable")
    parser.add_argument(
        "--any-code", action="store_true", help="make no cell anew that earlier code made; each names its commit"
    )
    if grid.parts:
        parser.add_argument("--part", action="append", choices=grid.parts, help="only this one; repeatable")
    if grid.model is not None:
        parser.set_defaults(model=None)
    return parser


@contextlib.contextmanager
def alone(place: Path) -> Iterator[None]:
    """Hold a preset's folder: two runs would rewrite texts that the other's workers read.

    Raises:
        Busy: another run holds it.
    """
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another run of this preset is going on in {place}; wait for its end") from None
        yield


def with_earlier(found: Record, before: Record) -> Record:
    """A result that still has every cell of the one ``before``, those apart that none of its parts names any more."""
    named = {_name(one) for one in cells_of(found)}
    left = [one for one in cells_of(before) if _name(one) not in named]
    return {**found, EARLIER: left} if left else found


def _name(cell: Record) -> str:
    return str(cell.get("key") or hash_of(cell))
