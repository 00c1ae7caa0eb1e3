"""Plots of results, one file each; an arm looks the same in all of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import domains, inputs, reading, sft, summary, year_tables
from tests.benchmarks.reading import Record

Lines = dict[str, list[list[float]]]
"""Arm -> a line for each seed."""
ACROSS = 3
"""Most panels side by side."""
SHORT = 4
"""Characters of a label up to which it stands straight."""
SOLID, DASHED, DOTTED, MIXED = "-", "--", ":", "-."
MARKERS = {SOLID: "o", DASHED: "s", DOTTED: "^", MIXED: "D"}
WIDTHS = {SOLID: 2.6, DASHED: 1.3, DOTTED: 1.6, MIXED: 1.3}
"""So that a broken line on a solid one hides neither."""
BLACK, GREEN, BLUE, ORANGE = "#222222", "#2ca02c", "#1f77b4", "#ff7f0e"
PURPLE, RED, PINK, GREY, BROWN, OLIVE, CYAN = (
    "#9467bd",
    "#d62728",
    "#e377c2",
    "#7f7f7f",
    "#8c564b",
    "#bcbd22",
    "#17becf",
)
STYLES = {
    "naive": (BLACK, SOLID),
    "naive, ties": (BLACK, DASHED),
    "lora": (BLACK, DOTTED),
    "retrain": (GREEN, SOLID),
    "joint": (GREEN, DASHED),
    "joint, all weights": (GREEN, DOTTED),
    "replay": (BLUE, SOLID),
    "rewarm-replay": (BLUE, SOLID),
    "replay 5 %": (BLUE, DOTTED),
    "replay 25 %": (BLUE, MIXED),
    "replay, soup": (BLUE, DASHED),
    "lora, replay": (CYAN, SOLID),
    "half": (ORANGE, SOLID),
    "half, replay": (ORANGE, DASHED),
    "half, bottom": (ORANGE, DOTTED),
    "infinite": (PURPLE, SOLID),
    "auto": (RED, DASHED),
    "skill-it": (PINK, SOLID),
    "doremi": (PINK, DASHED),
    "regmix": (PINK, DOTTED),
    "prior weights": (GREY, SOLID),
    "uniform weights": (GREY, DASHED),
    "mos": (BROWN, SOLID),
    "mos, released": (BROWN, DASHED),
    "nearest mean": (OLIVE, SOLID),
}
"""Arm -> colour by what it is a kind of, and dash: ``rewarm-replay`` is what the grids call ``replay``."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A value with its interval, and what it is held to."""

    value: float
    low: float
    high: float
    mark: float | None = None


def main_job(found: Record, path: Path) -> None:
    """Loss of every domain after every stage, one line an arm."""
    stages = ["base", *inputs.BATCHES]
    panels = {
        domain: {
            arm: [[cell["base"][domain], *(stage["scores"][domain] for stage in cell["stages"])] for cell in cells]
            for arm in dict.fromkeys(cell["cell"]["arm"] for cell in found["cells"])
            for cells in [summary.by_seed(found, arm)]
        }
        for domain in inputs.DOMAINS
    }
    draw(panels, path, x=stages, xlabel="after", ylabel="loss, nats a token")


def domain_losses(found: Record, path: Path) -> None:
    """Loss of the anchor and of every domain after every stage, in either order; and the mean over the years so far."""
    if "domains" in found:
        _in_turn(found["domains"], path)
    if "temporal" in found:
        _years(found["temporal"], path.with_name(f"{path.stem}-years.png"))
    if "reordered" in found:
        _in_turn(found["reordered"], path.with_name(f"{path.stem}-reordered.png"))


def _in_turn(grid: Record, path: Path) -> None:
    names = reading.stages_of(grid)
    panels = {name: _losses(grid, name) for name in (domains.ANCHOR, *names)}
    draw(panels, path, x=["base", *names], xlabel="after", ylabel="loss, nats a token")


def _years(grid: Record, path: Path) -> None:
    """Lines over the years that were scored; bars where it was one alone."""
    due = sorted(year_tables.scored_stages(grid["cells"][0]))
    years = {
        arm: [[year_tables.so_far(cell, at) for at in due] for cell in reading.cells(grid, arm).values()]
        for arm in reading.arms(grid)
    }
    title, label = "anchor and years so far", "loss, nats a token"
    if len(due) > 1:
        draw({title: years}, path, x=[str(at) for at in due], xlabel="years so far", ylabel=label)
        return
    ends = {arm: [line[-1] for line in lines] for arm, lines in years.items()}
    found = {
        arm: Bar(value=statistics.fmean(values), low=min(values), high=max(values)) for arm, values in ends.items()
    }
    bars({f"{title}, after {due[0]}": found}, path, xlabel=label)


def _losses(grid: Record, name: str) -> Lines:
    return {
        arm: [
            [cell["base"][name], *(stage["scores"][name] for stage in cell["stages"])]
            for cell in reading.cells(grid, arm).values()
        ]
        for arm in reading.arms(grid)
    }


def class_accuracies(found: Record, path: Path) -> None:
    """Accuracy over all classes so far, after every stage; joint training has one level, of the end."""
    sets = [name for name in found if isinstance(found[name], dict) and "cells" in found[name]]
    panels = {name: _by_stage(found[name], lambda cell, at: reading.average(cell, at)) for name in sets}
    longest = max(len(line) for lines in panels.values() for each in lines.values() for line in each)
    x = [str(at + 1) for at in range(longest)]
    draw(panels, path, x=x, xlabel="tasks so far", ylabel="accuracy over classes so far")


def _by_stage(grid: Record, figure: Callable[[Record, int], float]) -> Lines:
    return {
        arm: [[figure(cell, at) for at in range(len(cell["stages"]))] for cell in reading.cells(grid, arm).values()]
        for arm in reading.arms(grid)
    }


def sft_losses(found: Record, path: Path) -> None:
    """Loss of every family's answers after every stage."""
    panels = {name: _losses(found["families"], name) for name in (*sft.FAMILIES, sft.GENERAL)}
    draw(panels, path, x=["base", *sft.FAMILIES], xlabel="after", ylabel="loss of the answer, nats a token")


def mixing_agent(found: Record, path: Path) -> None:
    """How far losses fell under every way to choose a mixture, a panel for each held-out environment."""
    panels = {
        name: {
            row["policy"]: Bar(
                value=row["fall"], low=row["fall"] - row["fall_deviation"], high=row["fall"] + row["fall_deviation"]
            )
            for row in one["rows"]
        }
        for name, one in found["measured"]["held_out"].items()
    }
    bars(panels, path, xlabel="fall of the losses, standard deviations")


def half_cost(found: Record, path: Path) -> None:
    """Step time over full fine-tuning's, and its bound, a panel for each device and size."""
    panels = {
        f"{device}, {one['parameters'] / 1e6:.0f} M": {
            arm: Bar(value=ratio["median"], low=ratio["low"], high=ratio["high"], mark=figures["step_bound"])
            for arm, figures in one["arms"].items()
            for ratio in [figures["step_ratio"]]
        }
        for device, sizes in found["measured"]["sizes"].items()
        for one in sizes.values()
    }
    bars(panels, path, xlabel="step time over full fine-tuning's", mark="bound")


def draw(panels: Mapping[str, Lines], path: Path, *, x: Sequence[str], xlabel: str, ylabel: str) -> None:
    """Panels with a line an arm: its mean over seeds, and the range of them.

    A panel is as wide as its longest line. What was measured once, at the end, is a level with a star there.
    """
    with _panels(panels, path, height=3.2) as axes:
        for axis, lines in zip(axes, panels.values(), strict=True):
            width = max(len(each[0]) for each in lines.values())
            for arm, each in lines.items():
                _line(axis, arm, each, width)
            slanted = {"rotation": 30, "ha": "right"} if max(map(len, x)) > SHORT else {}
            axis.set_xticks(range(width), x[:width], **slanted)
            axis.set_xlabel(xlabel)
            axis.set_ylabel(ylabel)


def _line(axis: Any, arm: str, each: Sequence[Sequence[float]], width: int) -> None:
    colour, dash = STYLES[arm]
    means, least, most = ([of(values) for values in zip(*each, strict=True)] for of in (statistics.fmean, min, max))
    if len(means) == 1 < width:
        axis.axhline(means[0], color=colour, linestyle=dash, linewidth=1, label=arm)
        axis.plot([width - 1], means, color=colour, marker="*", markersize=11, zorder=4)
        return
    at = range(len(means))
    look = {"linestyle": dash, "linewidth": WIDTHS[dash], "marker": MARKERS[dash], "markersize": 4, "mfc": "white"}
    axis.plot(at, means, color=colour, label=arm, zorder=2 + (dash != SOLID), **look)
    axis.fill_between(at, least, most, alpha=0.15, color=colour)


def bars(panels: Mapping[str, Mapping[str, Bar]], path: Path, *, xlabel: str, mark: str = "") -> None:
    """Panels with a bar and its interval for each name, the longest on top; ``mark`` says what its tick is."""
    with _panels(panels, path, height=3.0) as axes:
        for axis, found in zip(axes, panels.values(), strict=True):
            ranked = sorted(found.items(), key=lambda one: one[1].value)
            names, values = [name for name, _ in ranked], [one for _, one in ranked]
            reach = [[one.value - one.low for one in values], [one.high - one.value for one in values]]
            axis.barh(names, [one.value for one in values], xerr=reach, color="#9db4c8", capsize=3)
            held = [(one.mark, at) for at, one in enumerate(values) if one.mark is not None]
            if held:
                axis.plot(*zip(*held, strict=True), "|", color=RED, markersize=16, markeredgewidth=2, label=mark)
            axis.set_xlabel(xlabel)


@contextmanager
def _panels(titles: Mapping[str, Any], path: Path, *, height: float) -> Iterator[list[Any]]:
    """Axes under their titles, at most :data:`ACROSS` in a row, with one legend of what all of them have."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    down = math.ceil(len(titles) / ACROSS)
    across = math.ceil(len(titles) / down)
    alone = len(titles) == 1
    size = (9, 1.8 * height) if alone else (4.4 * across, height * down + 0.6)
    figure, grid = pyplot.subplots(down, across, figsize=size, squeeze=False, layout="constrained")
    axes, spare = list(grid.flat)[: len(titles)], list(grid.flat)[len(titles) :]
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title)
    for axis in spare:
        axis.remove()
    yield axes
    found = {name: handle for axis in axes for handle, name in zip(*axis.get_legend_handles_labels(), strict=True)}
    if found:
        columns = min(len(found), 5 if alone else 2 * across)
        figure.legend(
            found.values(),
            found,
            loc="outside lower center",
            ncols=columns,
            fontsize=8,
            handlelength=3.5,
            markerscale=0.7,
        )
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
