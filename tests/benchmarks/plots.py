"""Plots of results, one file each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import domains, inputs, sft, summary, tables

Record = dict[str, Any]
Lines = dict[str, list[list[float]]]
"""Arm -> a line for each seed."""


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
    draw(panels, path, x=stages, ylabel="loss, nats a token")


def domain_losses(found: Record, path: Path) -> None:
    """Loss of the anchor and of every domain after every stage; and the mean over the years so far."""
    if "domains" in found:
        names = tables.stages_of(found["domains"])
        panels = {name: _losses(found["domains"], name) for name in (domains.ANCHOR, *names)}
        draw(panels, path, x=["base", *names], ylabel="loss, nats a token")
    if "temporal" in found:
        _years(found["temporal"], path.with_name(f"{path.stem}-years.png"))


def _years(grid: Record, path: Path) -> None:
    due = sorted(tables.scored_stages(grid["cells"][0]))
    years = {
        arm: [[tables.so_far(cell, at) for at in due] for cell in tables.cells(grid, arm).values()]
        for arm in tables.arms(grid)
    }
    draw({"anchor and years so far": years}, path, x=[str(at) for at in due], ylabel="loss, nats a token")


def _losses(grid: Record, name: str) -> Lines:
    return {
        arm: [
            [cell["base"][name], *(stage["scores"][name] for stage in cell["stages"])]
            for cell in tables.cells(grid, arm).values()
        ]
        for arm in tables.arms(grid)
    }


def class_accuracies(found: Record, path: Path) -> None:
    """Accuracy over all classes so far, after every stage; joint training is a point at the end."""
    sets = [name for name in found if isinstance(found[name], dict) and "cells" in found[name]]
    panels = {name: _by_stage(found[name], lambda cell, at: tables.average(cell, at)) for name in sets}
    longest = max(len(line) for lines in panels.values() for each in lines.values() for line in each)
    draw(panels, path, x=[str(at + 1) for at in range(longest)], ylabel="accuracy over classes so far")


def _by_stage(grid: Record, figure: Callable[[Record, int], float]) -> Lines:
    return {
        arm: [[figure(cell, at) for at in range(len(cell["stages"]))] for cell in tables.cells(grid, arm).values()]
        for arm in tables.arms(grid)
    }


def sft_losses(found: Record, path: Path) -> None:
    """Loss of every family's answers after every stage."""
    panels = {name: _losses(found["families"], name) for name in (*sft.FAMILIES, sft.GENERAL)}
    draw(panels, path, x=["base", *sft.FAMILIES], ylabel="loss of the answer, nats a token")


def mixing_agent(measured: Record, path: Path) -> None:
    """How far losses fell under every way to choose a mixture, a panel for each held-out environment."""
    panels = {
        name: {row["policy"]: (row["fall"], row["fall_deviation"]) for row in found["rows"]}
        for name, found in measured["held_out"].items()
    }
    bars(panels, path, xlabel="fall of the losses, deviations")


def half_cost(measured: Record, path: Path) -> None:
    """Step time over full fine-tuning's, a panel for each device and size."""
    panels = {
        f"{device}, {one['parameters'] / 1e6:.0f} M": {
            arm: (ratio["median"], (ratio["high"] - ratio["low"]) / 2)
            for arm, ratio in ((arm, figures["step_ratio"]) for arm, figures in one["arms"].items())
        }
        for device, sizes in measured["sizes"].items()
        for one in sizes.values()
    }
    bars(panels, path, xlabel="step time over full fine-tuning's")


def draw(panels: dict[str, Lines], path: Path, *, x: Sequence[str], ylabel: str) -> None:
    """A row of panels with a line an arm: its mean over seeds, and the range of them.

    A panel is as wide as its longest line, and shorter ones end at the right.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(4 * len(panels), 3.8), squeeze=False, layout="constrained")
    for axis, (title, lines) in zip(axes[0], panels.items(), strict=True):
        width = max(len(each[0]) for each in lines.values())
        for arm, each in lines.items():
            at = list(range(width - len(each[0]), width))
            means = [statistics.fmean(values) for values in zip(*each, strict=True)]
            (line,) = axis.plot(at, means, marker="o", markersize=3, label=arm)
            least, most = ([of(values) for values in zip(*each, strict=True)] for of in (min, max))
            axis.fill_between(at, least, most, alpha=0.2, color=line.get_color())
        axis.set_title(title)
        axis.set_xticks(range(width), x[:width], rotation=30)
    axes[0][0].set_ylabel(ylabel)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 3 * len(panels)), fontsize=8)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def bars(panels: dict[str, dict[str, tuple[float, float]]], path: Path, *, xlabel: str) -> None:
    """A row of panels with a bar and its deviation for every arm, the longest on top."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.4), squeeze=False)
    for axis, (title, found) in zip(axes[0], panels.items(), strict=True):
        ranked = sorted(found.items(), key=lambda one: one[1][0])
        values, deviations = zip(*(figures for _, figures in ranked), strict=True)
        axis.barh([name for name, _ in ranked], values, xerr=deviations)
        axis.set_title(title)
        axis.set_xlabel(xlabel)
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
