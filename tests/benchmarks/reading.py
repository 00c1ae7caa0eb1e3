"""What a grid's result has, as tables and plots read it: cells by arm and seed, figures over them, rates and costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from tests.benchmarks.domains import NAIVE
from tests.benchmarks.figures import Goal, Spread, markdown_table, shown

Record = dict[str, Any]
Figure = Callable[[Record], float]
REFERENCE = NAIVE.name
EDGE = "†"
EDGE_WORDS = f"{EDGE} the least or the greatest of the three rates that were tried: a better one may lie beyond."
TIED = "="
TIED_WORDS = f"{TIED} all rates that were tried came to the same."
COST_WORDS = (
    "`CPU s` is what measuring and training took, the least over the seeds, without the scoring for these tables or for"
    " a gate; cells of earlier commits have what a gate scores among what was measured. Cells were made at different"
    " hours, by commits of different speed and on a machine whose own varied by up to two: rows cannot be compared by"
    " it, least of all those of other numbers of seeds. Tokens can, and the benchmark `half_cost` times steps in pairs."
)


def stages_of(grid: Record) -> list[str]:
    """Names of the stages that the grid's arms go through."""
    return [stage["name"] for stage in grid["cells"][0]["stages"]]


def arms(grid: Record) -> list[str]:
    """Names of a grid's arms, in their order."""
    return list(dict.fromkeys(cell["cell"]["arm"] for cell in grid["cells"]))


def cells(grid: Record, arm: str) -> dict[int, Record]:
    """An arm's cells by seed."""
    return {int(one["cell"]["seed"]): one for one in grid["cells"] if one["cell"]["arm"] == arm}


def spread(found: Iterable[Record], figure: Figure) -> Spread:
    """A figure of some cells."""
    return Spread(values=tuple(figure(one) for one in found))


def over_seeds(grid: Record, arm: str, figure: Figure) -> Spread:
    """A figure of an arm's cells."""
    return spread((one for _, one in sorted(cells(grid, arm).items())), figure)


def paired(grid: Record, arm: str, other: str, figure: Callable[[Record, Record], float]) -> Spread:
    """A figure of two arms' cells with the same seed."""
    own, others = cells(grid, arm), cells(grid, other)
    return Spread(values=tuple(figure(own[seed], others[seed]) for seed in sorted(own.keys() & others.keys())))


# --- rates, and naive at each of them ------------------------------------------------------------------------------


def tuned(grid: Record, arm: str) -> dict[float, float]:
    """Rate -> mean score that an arm's rate was chosen by, the lower the better; a rate that failed has the worst.

    Results from before cells had names have it beside the rate.
    """
    rows = [(row.get("cell", row), row.get("select", math.inf)) for row in grid.get("tuning", ())]
    return {float(cell["rate"]): float(select) for cell, select in rows if cell["arm"] == arm}


def rate_shown(grid: Record, arm: str) -> str:
    """An arm's rate, marked where it stands at the edge of what was tried, or where all came to the same."""
    rate, tried = float(grid["rates"][arm]), tuned(grid, arm)
    if len(tried) > 1 and len(set(tried.values())) == 1:
        return f"{rate:g}{TIED}"
    return f"{rate:g}{EDGE if tried and rate in (min(tried), max(tried)) else ''}"


def naive_cells(grid: Record) -> dict[tuple[int, float], Record]:
    """Seed and rate -> naive's cell, at its own rate and at the others'."""
    found = [*cells(grid, REFERENCE).values(), *grid.get("references", ())]
    return {(int(one["cell"]["seed"]), _rate(one)): one for one in found}


def beside_naive(grid: Record, arm: str, figure: Callable[[Record, Record], float]) -> Spread:
    """A figure of an arm's cells and naive's at the same rate: at a lower rate anything forgets less."""
    naive = naive_cells(grid)
    own = [(one, (seed, _rate(one))) for seed, one in sorted(cells(grid, arm).items())]
    return Spread(values=tuple(figure(one, naive[at]) for one, at in own if at in naive))


def shares_rates(grid: Record, arm: str) -> bool:
    """Whether an arm was tuned over naive's rates; an adapter takes others, at which naive says nothing."""
    return tuned(grid, arm).keys() == tuned(grid, REFERENCE).keys()


def lacking_references(grid: Record) -> str:
    """Naive at rates of the others that it was not carried out at, in words."""
    there = naive_cells(grid)
    lacking: dict[float, list[str]] = {}
    for arm in (arm for arm in arms(grid) if shares_rates(grid, arm)):
        for seed, one in sorted(cells(grid, arm).items()):
            if (seed, _rate(one)) not in there and arm not in lacking.get(_rate(one), ()):
                lacking.setdefault(_rate(one), []).append(arm)
    said = [f"{rate:g} (for {' | '.join(names)})" for rate, names in sorted(lacking.items())]
    return f"{REFERENCE} was not carried out at {'; '.join(said)}" if said else ""


def uncompared(grid: Record) -> str:
    """The same as a sentence: what is not compared."""
    lacking = lacking_references(grid)
    return f"Not compared with naive at the same rate: {lacking}." if lacking else ""


def _rate(cell: Record) -> float:
    return float(cell["cell"]["rate"])


# --- tables --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Column:
    """A figure of every row's cells."""

    head: str
    figure: Figure
    form: str = ".3f"
    of_base: Callable[[Mapping[str, float]], float] | None = None
    """The same of the base's scores, where they have it."""
    least: bool = False
    """The least of the cells instead of their mean: of a time, to which whatever else runs can only add."""

    def of(self, found: Iterable[Record]) -> str:
        """The figure of some cells as the table shows it."""
        over = spread(found, self.figure)
        return shown(Spread(values=(min(over.values),)) if self.least and over.values else over, self.form)


def table(grid: Record, columns: Sequence[Column]) -> str:
    """The base, every arm at its rate, and naive at the others' rates."""
    base = grid["cells"][0]["base"]
    rows = [_base_row(base, columns)] if base else []
    rows += [
        (arm, rate_shown(grid, arm), *(one.of(cells(grid, arm).values()) for one in columns)) for arm in arms(grid)
    ]
    rows += [(REFERENCE, f"{rate:g}", *(one.of(found) for one in columns)) for rate, found in _references(grid).items()]
    return markdown_table(("arm", "rate", *(one.head for one in columns)), rows)


def rate_notes(grid: Record) -> str:
    """What the marks beside rates mean, where there are any."""
    shown = [rate_shown(grid, arm) for arm in arms(grid)]
    notes = ((EDGE, EDGE_WORDS), (TIED, TIED_WORDS))
    return " ".join(words for mark, words in notes if any(one.endswith(mark) for one in shown))


def costs() -> tuple[Column, Column]:
    """What an arm's stages took."""
    return (
        Column(head="tokens", figure=lambda one: cost(one)["tokens"], form=",.0f"),
        Column(head="CPU s", figure=lambda one: cost(one)["cpu_s"], form=",.0f", least=True),
    )


def _base_row(base: Mapping[str, float], columns: Sequence[Column]) -> tuple[str, ...]:
    figures = ((one.of_base(base),) if one.of_base else () for one in columns)
    shares = (shown(Spread(values=one), column.form) for one, column in zip(figures, columns, strict=True))
    return ("base", "", *shares)


def _references(grid: Record) -> dict[float, list[Record]]:
    found = sorted(grid.get("references", ()), key=lambda one: (_rate(one), one["cell"]["seed"]))
    return {rate: list(some) for rate, some in groupby(found, key=_rate)}


# --- figures of a cell ---------------------------------------------------------------------------------------------


def cost(cell: Record) -> Record:
    """Tokens, and CPU seconds of measuring and training and of measuring alone, over all stages."""
    spent = [stage["cpu_s"] for stage in cell["stages"]]
    return {
        "tokens": sum(stage["tokens"] for stage in cell["stages"]),
        "cpu_s": sum(one.get(kind, 0.0) for one in spent for kind in ("measure", "train")),
        "measure_s": sum(one.get("measure", 0.0) for one in spent),
    }


def end(cell: Record) -> Record:
    """Scores after the last stage."""
    found: Record = cell["stages"][-1]["scores"]
    return found


def average(cell: Record, stage: int = -1, names: Sequence[str] | None = None) -> float:
    """Mean score after a stage over fixed sets (None: over all of them)."""
    scores = cell["stages"][stage]["scores"]
    return statistics.fmean(scores[name] for name in names or scores)


def measured(goals: Iterable[Goal]) -> list[Goal]:
    """Those whose arms were run."""
    return [goal for goal in goals if goal.measured.values]


def scores_matrix(cell: Record, names: Sequence[str]) -> np.ndarray:
    """Stages × sets, losses with their sign turned; NaN where a set was not scored."""
    return -np.array([[stage["scores"].get(name, math.nan) for name in names] for stage in cell["stages"]])
