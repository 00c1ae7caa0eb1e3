"""The grids of strategies in the report: title, markdown and plot of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmarks import sft_tables, tables
from tests.benchmarks.figures import Goal, goals_line, goals_table, shown

Record = dict[str, Any]


NO_BOUND = (
    "Joint training ends below nearest mean: of so few documents and passes it is no upper bound, "
    "and nothing is claimed beside it."
)


def domains(found: Record) -> str:
    """Both streams, as far as they were run."""
    preset = found["preset"]
    parts = [origin(found, f"{preset['tokens']:,} tokens a domain, {preset['year_tokens']:,} a year")]
    if "domains" in found:
        parts += [
            f"{len(preset['domains'])} domains in turn. Losses are nats a token on fixed files at the end; `forgetting`"
            " is the mean over earlier domains of how far the loss ended above its least before the last stage (below"
            " zero: it went on falling), `own loss` the mean right after each stage.",
            tables.domains_table(found["domains"]),
            "Forgetting of each:",
            tables.forgetting_table(found["domains"]),
            "What was expected; shares of naive's rise are of naive at the same learning rate.",
            goals_table(tables.domain_goals(found["domains"])),
        ]
    if "temporal" in found:
        parts += [
            "A batch a year; mean loss over the anchor and the years so far. `retrain` starts again every fifth year.",
            tables.temporal_table(found["temporal"]),
            "Forgetting: how far the loss of the anchor, and of the years in spans as they were scored, ended above its"
            " least since they were learned.",
            tables.years_forgotten_table(found["temporal"]),
            goals_table(tables.temporal_goals(found["temporal"])),
        ]
    return "\n\n".join(parts)


def domains_line(found: Record) -> str:
    """How many goals were met of either stream, and which were missed."""
    streams = {"domains": tables.domain_goals, "temporal": tables.temporal_goals}
    return _line({name: goals(found[name]) for name, goals in streams.items() if name in found})


def _line(goals: Mapping[str, Sequence[Goal]]) -> str:
    return ". ".join(f"{name}: {goals_line(found)}" for name, found in goals.items())


def classes(found: Record) -> str:
    """Each data set that was run."""
    parts = [origin(found, "accuracy over all classes so far, on the published test split")]
    for name, goals in _class_goals(found).items():
        parts += [f"{name}:", tables.class_table(found[name]), goals_table(goals)]
        behind = tables.behind_released(found[name])
        if behind.values and behind.mean > 0:
            parts.append(f"`mos` ends {shown(behind, '.1%')} behind its released form.")
        if tables.joint_arms(found[name]) and tables.upper_bound(found[name]) is None:
            parts.append(NO_BOUND)
    return "\n\n".join(parts)


def classes_line(found: Record) -> str:
    """How many goals were met of each data set, and which were missed."""
    return _line(_class_goals(found))


def _class_goals(found: Record) -> dict[str, list[Goal]]:
    sets = [name for name in ("clinc150", "banking77") if name in found]
    return {name: tables.class_goals(found[name], near_joint=name == "clinc150") for name in sets}


def sft(found: Record) -> str:
    """The six families."""
    preset = found["preset"]
    return "\n\n".join(
        [
            origin(found, f"{preset['examples']} examples a family, {preset['epochs']:g} passes"),
            "Answers' losses are nats a token; `scan` is scored by exact matches. OP is the mean over the other five"
            " families at the end, BWT how much better they are at the end than when they were learned, the sum divided"
            " by the families but one.",
            sft_tables.table(found["families"]),
            "Loss after a family's own stage → at the end:",
            sft_tables.families_table(found["families"]),
            sft_tables.findings(found["families"]),
        ]
    )


def sft_line(found: Record) -> str:
    """Which arms are no better than naive."""
    return sft_tables.findings(found["families"]).removesuffix(".")


def _commits(found: Record) -> str:
    """The commits that made the cells: several where kept ones were taken as they were."""
    cells = [cell for part in _grids(found).values() for cell in part["cells"]]
    made = sorted({cell.get("commit", found["commit"]) for cell in cells})
    return f"commit{'s' if len(made) > 1 else ''} {', '.join(f'`{one}`' for one in made)}"


def origin(found: Record, more: str) -> str:
    """Where the figures come from."""
    preset, on = found["preset"], found["machine"]
    return (
        f"Preset `{preset['name']}`: {more}, {_seeds(found)}, {_commits(found)}, "
        f"torch {on['torch']} on {on['cores']} cores, {found['side_by_side_s'] / 60:.0f} minutes of both cores. "
        "The learning rate of every arm is tuned alike: three rates, one seed, on `select`." + _missing(found)
    )


def _grids(found: Record) -> dict[str, Record]:
    return {name: part for name, part in found.items() if isinstance(part, dict) and "cells" in part}


def _seeds(found: Record) -> str:
    """How many seeds the arms have."""
    counts = {len(tables.cells(grid, arm)) for grid in _grids(found).values() for arm in tables.arms(grid)}
    least, most = min(counts), max(counts)
    return f"{most} seed{'s' if most > 1 else ''}" if least == most else f"{least} to {most} seeds"


def _missing(found: Record) -> str:
    """What of the preset has not been carried out, in words."""
    said = []
    for name, grid in _grids(found).items():
        seeds: dict[str, list[str]] = {}
        for arm, seed in grid.get("missing", ()):
            seeds.setdefault(arm, []).append(str(seed))
        alike: dict[str, list[str]] = {}
        for arm, of in seeds.items():
            alike.setdefault(f"seed{'s' if len(of) > 1 else ''} {', '.join(of)}", []).append(arm)
        words = (f"{' | '.join(arms)} ({of})" for of, arms in alike.items())
        said += [f"{name}: {'; '.join(words)}"] if seeds else []
    return f" Not carried out: {'. '.join(said)}." if said else ""
