"""The grids of strategies in the report: title, markdown and line of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tests.benchmarks import class_tables, domain_tables, reading, sft_tables, text_tables, year_tables
from tests.benchmarks.cells import EARLIER, cells_of
from tests.benchmarks.classes import ARMS as CLASS_ARMS
from tests.benchmarks.classes import SETS
from tests.benchmarks.domains import ARMS_OF as TEXT_ARMS
from tests.benchmarks.figures import Goal, goals_line, goals_table, listed, shown
from tests.benchmarks.lineup import Arm
from tests.benchmarks.reading import Record
from tests.benchmarks.sft import ARMS as SFT_ARMS

Defined = Mapping[str, Sequence[Arm]]
"""Part of a benchmark -> its arms."""
NO_BOUND = (
    "Joint training ends below nearest mean: of so few documents and passes it is no upper bound, "
    "and nothing is claimed beside it."
)
EXPECTED = (
    "What was expected; shares of naive's rise, and losses above naive's, are of naive at the same learning rate:"
)
NO_GRID = (
    "No three rates have every arm's best inside: naive is best at the least of these, the arms that replay at the"
    " greatest."
)
FORGOTTEN = (
    "`forgetting` is F (max) of METHODS 9, how far a loss ended above its least before the last stage; below zero it"
    " went on falling."
)


def domains(found: Record) -> str:
    """Each stream, as far as it was run."""
    preset = found["preset"]
    sizes = (
        f"{preset['tokens']:,} tokens a domain and {preset['year_tokens']:,} a year, scored on"
        f" {preset['fixed_documents']} documents a domain and {preset['year_documents']} a year"
    )
    parts = [origin(found, sizes, TEXT_ARMS), reading.COST_WORDS]
    if "domains" in found:
        parts += _domains(found["domains"], len(preset["domains"]))
    if "temporal" in found:
        parts += _years(found["temporal"])
    if "reordered" in found:
        parts += _reordered(found["reordered"])
    return "\n\n".join(part for part in parts if part)


def _no_grid(grid: Record) -> str:
    naive, replay = (reading.tuned(grid, arm) for arm in ("naive", "replay"))
    ends = naive and replay and (grid["rates"]["naive"], grid["rates"]["replay"]) == (min(naive), max(replay))
    return NO_GRID if ends else ""


def _domains(grid: Record, count: int) -> list[str]:
    return [
        f"{count} domains in turn. Losses are nats a token on fixed files at the end; `own loss` is the mean right"
        f" after each stage. {FORGOTTEN} Last stands naive at the others' rates.",
        domain_tables.domains_table(grid),
        listed([reading.rate_notes(grid), _no_grid(grid)]),
        text_tables.old_shares(grid),
        "Forgetting of each:",
        domain_tables.forgetting_table(grid),
        EXPECTED,
        goals_table(domain_tables.domain_goals(grid)),
        _beside(grid),
        listed([domain_tables.standing_words(grid), domain_tables.bottom_words(grid)]),
    ]


def _years(grid: Record) -> list[str]:
    return [
        "A batch a year; mean loss over the anchor and the years so far. `retrain` starts again every fifth year.",
        year_tables.temporal_table(grid),
        reading.rate_notes(grid),
        text_tables.old_shares(grid),
        "Forgetting, as above, of the anchor and of the years in spans as they were scored:",
        year_tables.years_forgotten_table(grid),
        EXPECTED,
        goals_table(year_tables.temporal_goals(grid)),
        listed([year_tables.measuring_words(grid), year_tables.infinite_words(grid)]),
        _beside(grid),
    ]


def _reordered(grid: Record) -> list[str]:
    return [
        "The domains in the opposite order, strong shifts first, at the rates of the first stream. No rule of `auto`"
        " was made from these.",
        domain_tables.domains_table(grid),
        text_tables.old_shares(grid),
        "What was expected:",
        goals_table(text_tables.auto_goal(grid)),
        text_tables.auto_words(grid, rules_from_it=False),
    ]


def _beside(grid: Record) -> str:
    """What the goals of a stream of texts leave out."""
    return listed([reading.uncompared(grid), text_tables.half_words(grid), text_tables.auto_words(grid)])


def domains_line(found: Record) -> str:
    """How many goals were met of each stream, and which were missed."""
    streams = {
        "domains": domain_tables.domain_goals,
        "temporal": year_tables.temporal_goals,
        "reordered": text_tables.auto_goal,
    }
    return _line(found, {name: goals(found[name]) for name, goals in streams.items() if name in found}, TEXT_ARMS)


def _line(found: Record, goals: Mapping[str, Sequence[Goal]], defined: Defined) -> str:
    return ". ".join(
        f"{name} ({carried(found, found[name], defined[name])}): {goals_line(some)}" for name, some in goals.items()
    )


def classes(found: Record) -> str:
    """Each data set that was run."""
    preset = found["preset"]
    train, test = (preset[split] or "all" for split in ("train", "test"))
    sizes = (
        f"{train} training and {test} test documents a class, {preset['epochs']:g} epochs a task; accuracy over all"
        " classes so far, on the published test split"
    )
    parts = [origin(found, sizes, dict.fromkeys(SETS, CLASS_ARMS)), reading.COST_WORDS]
    for name, goals in _class_goals(found).items():
        grid = found[name]
        parts += [f"{name}:", class_tables.class_table(grid), reading.rate_notes(grid), goals_table(goals)]
        behind = class_tables.behind_released(grid)
        if behind.values and behind.mean > 0:
            parts.append(f"`mos` ends {shown(behind, '.1%')} behind its released form.")
        if class_tables.joint_arms(grid) and class_tables.upper_bound(grid) is None:
            parts.append(NO_BOUND)
    return "\n\n".join(part for part in parts if part)


def classes_line(found: Record) -> str:
    """How many goals were met of each data set, and which were missed."""
    return _line(found, _class_goals(found), dict.fromkeys(SETS, CLASS_ARMS))


def _class_goals(found: Record) -> dict[str, list[Goal]]:
    sets = [name for name in SETS if name in found]
    return {name: class_tables.class_goals(found[name], near_joint=name == "clinc150") for name in sets}


def sft(found: Record) -> str:
    """The six families."""
    preset, grid = found["preset"], found["families"]
    sizes = f"{preset['examples']} examples a family, {preset['epochs']:g} passes, {preset['test']} test documents each"
    parts = [
        origin(found, sizes, {"families": SFT_ARMS}),
        reading.COST_WORDS,
        "Answers' losses are nats a token; `scan` is scored by exact matches, of which an answer that was cut"
        f" (at {preset['max_length'] - 1} tokens) is none. OP is the mean over the other five families at the"
        " end, BWT how much better they are at the end than when they were learned, the sum divided by the families but"
        " one.",
        sft_tables.table(grid),
        reading.rate_notes(grid),
        "Loss after a family's own stage → at the end:",
        sft_tables.families_table(grid),
        listed([sft_tables.findings(grid), reading.uncompared(grid)]),
    ]
    return "\n\n".join(part for part in parts if part)


def sft_line(found: Record) -> str:
    """What did not work."""
    grid = found["families"]
    said = listed([sft_tables.findings(grid), reading.uncompared(grid)])
    return f"{carried(found, grid, SFT_ARMS)}. {said}".removesuffix(".")


# --- where figures come from ---------------------------------------------------------------------------------------


def origin(found: Record, sizes: str, defined: Defined) -> str:
    """Where the figures come from."""
    grids = {name: (grid, defined[name]) for name, grid in _grids(found).items()}
    parts = [
        f"Preset `{found['preset']['name']}`: {sizes}.",
        *(f"{name}: {carried(found, *one)}." for name, one in grids.items()),
        f"{_several('commit', _commits(found))}, torch {' and '.join(_torches(found))} on"
        f" {found['machine']['cores']} cores, {found['side_by_side_s'] / 60:.0f} minutes of both cores.",
        f"The learning rate of every arm is tuned alike: three rates, one seed, on {_tuned_on(found)}.",
        _told("Not carried out", {name: _missing(found, *one) for name, one in grids.items()}),
        _told("Failed", {name: _failed(grid) for name, grid in _grids(found).items()}),
        _earlier(found),
    ]
    return listed(parts)


def carried(found: Record, grid: Record, defined: Sequence[Arm]) -> str:
    """How many of the arms and seeds of a preset are there."""
    asked, there = _asked(found, defined), reading.arms(grid)
    seeds, all_seeds = {seed for arm in there for seed in reading.cells(grid, arm)}, found["preset"]["seeds"]
    arms = len(dict.fromkeys(arm for arm, _ in asked))
    return f"{len(there)} of {arms} arms, {len(seeds)} of {len(all_seeds)} seed{'s' if len(all_seeds) > 1 else ''}"


def _grids(found: Record) -> dict[str, Record]:
    return {name: part for name, part in found.items() if isinstance(part, dict) and "cells" in part}


def _asked(found: Record, defined: Sequence[Arm]) -> list[tuple[str, int]]:
    """Arms and seeds of the preset, those that came to the grid since its result was written too."""
    preset = found["preset"]
    names = preset.get("arms") or [arm.name for arm in defined]
    arms = [arm for arm in defined if arm.name in names]
    return [(arm.name, seed) for seed in preset["seeds"] for arm in arms if arm.all_seeds or seed == preset["seeds"][0]]


def _commits(found: Record) -> list[str]:
    """The commits that made the cells: several where kept ones were taken as they were."""
    return sorted({f"`{cell.get('commit', found['commit'])}`" for cell in _shown_cells(found)})


def _torches(found: Record) -> list[str]:
    machines = [{**found["machine"], **cell.get("machine", {})} for cell in _shown_cells(found)]
    return sorted({str(one["torch"]) for one in machines})


def _shown_cells(found: Record) -> Iterator[Record]:
    return cells_of({name: part for name, part in found.items() if name != EARLIER})


def _several(noun: str, names: Sequence[str]) -> str:
    return f"{noun.capitalize()}{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _tuned_on(found: Record) -> str:
    """What rates were chosen by; results from before it was counted say less."""
    grids = list(_grids(found).values())
    counts = [count for grid in grids for count in grid.get("tuned_on", {}).values()]
    if not all("tuned_on" in grid for grid in grids):
        return "held-out documents"
    return f"`select`, {min(counts)} to {max(counts)} documents a set"


def _missing(found: Record, grid: Record, defined: Sequence[Arm]) -> list[str]:
    """Arms with their seeds, those that lack the same ones together."""
    failed = {(one["cell"]["arm"], one["cell"]["seed"]) for one in grid.get("failed", ())}
    seeds: dict[str, list[str]] = {}
    for arm, seed in _asked(found, defined):
        if seed not in reading.cells(grid, arm) and (arm, seed) not in failed:
            seeds.setdefault(arm, []).append(str(seed))
    alike: dict[str, list[str]] = {}
    for arm, of in seeds.items():
        alike.setdefault(f"{'seeds' if len(of) > 1 else 'seed'} {', '.join(of)}", []).append(arm)
    return [f"{' | '.join(arms)} ({of})" for of, arms in alike.items()]


def _failed(grid: Record) -> list[str]:
    tuning: list[Record] = [one for one in grid.get("tuning", ()) if "failed" in one]
    return [f"tuning {_why(one)}" for one in tuning] + [_why(one) for one in grid.get("failed", ())]


def _why(failed: Record) -> str:
    cell = failed["cell"]
    return f"{cell['arm']} at {cell['rate']:g}, seed {cell['seed']} ({failed['failed']})"


def _told(what: str, by_grid: Mapping[str, Sequence[str]]) -> str:
    said = [f"{name}: {'; '.join(words)}" for name, words in by_grid.items() if words]
    return f"{what}: {'. '.join(said)}." if said else ""


def _earlier(found: Record) -> str:
    count = len(found.get(EARLIER, ()))
    return f"{count} cells of settings that the grid no longer has are in the JSON alone." if count else ""
