"""Tables of the grids of strategies: pure functions from a result's JSON to figures, goals and markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from strategies import metrics
from tests.benchmarks.classes import JOINT, RELEASED
from tests.benchmarks.domains import ANCHOR, DOMAINS
from tests.benchmarks.figures import Goal, Spread, markdown_table, shown

Record = dict[str, Any]
STRONG = DOMAINS[-2:]
WEAK = DOMAINS[0]


def stages_of(grid: Record) -> list[str]:
    """Names of the stages that the grid's arms go through."""
    return [stage["name"] for stage in grid["cells"][0]["stages"]]


def arms(grid: Record) -> list[str]:
    """Names of a grid's arms, in their order."""
    return list(dict.fromkeys(cell["cell"]["arm"] for cell in grid["cells"]))


def cells(grid: Record, arm: str) -> dict[int, Record]:
    """An arm's cells by seed."""
    return {int(one["cell"]["seed"]): one for one in grid["cells"] if one["cell"]["arm"] == arm}


def over_seeds(grid: Record, arm: str, figure: Callable[[Record], float]) -> Spread:
    """A figure of an arm's cells."""
    return Spread(values=tuple(figure(one) for _, one in sorted(cells(grid, arm).items())))


def paired(grid: Record, arm: str, other: str, figure: Callable[[Record, Record], float]) -> Spread:
    """A figure of two arms' cells with the same seed."""
    own, others = cells(grid, arm), cells(grid, other)
    return Spread(values=tuple(figure(own[seed], others[seed]) for seed in sorted(own.keys() & others.keys())))


def cost(cell: Record) -> Record:
    """Tokens, and CPU seconds of all jobs, over all stages."""
    stages = cell["stages"]
    return {
        "tokens": sum(stage["tokens"] for stage in stages),
        "cpu_s": sum(sum(stage["cpu_s"].values()) for stage in stages),
    }


def end(cell: Record) -> Record:
    """Scores after the last stage."""
    found: Record = cell["stages"][-1]["scores"]
    return found


def average(cell: Record, stage: int = -1, names: Sequence[str] | None = None) -> float:
    """Mean score after a stage over fixed sets (None: over all of them)."""
    scores = cell["stages"][stage]["scores"]
    return statistics.fmean(scores[name] for name in names or scores)


def rise(cell: Record, stage: int = -1) -> float:
    """Relative rise of the anchor's loss from the base to the version of a stage."""
    return float(cell["stages"][stage]["scores"][ANCHOR] / cell["base"][ANCHOR] - 1)


def share_of_rise(cell: Record, other: Record, stage: int) -> float:
    """The anchor's rise as a share of another cell's; NaN where that one forgot nothing."""
    return rise(cell, stage) / rise(other, stage) if rise(other, stage) > 0 else math.nan


def scores_matrix(cell: Record, names: Sequence[str]) -> np.ndarray:
    """Stages × sets, losses with their sign turned; NaN where a set was not scored."""
    return -np.array([[stage["scores"].get(name, math.nan) for name in names] for stage in cell["stages"]])


# --- domains -----------------------------------------------------------------------------------------------------


def domains_table(grid: Record) -> str:
    """Average loss at the end, forgetting and cost of every arm."""
    head = ("arm", "rate", "average loss", "anchor's rise", "forgetting", "own loss", "tokens", "CPU s")
    return markdown_table(head, (_domain_row(grid, arm) for arm in arms(grid)))


def _domain_row(grid: Record, arm: str) -> tuple[str, ...]:
    names = stages_of(grid)
    forgetting = over_seeds(grid, arm, lambda one: metrics.forgetting(scores_matrix(one, names)))
    learned = over_seeds(grid, arm, lambda one: -metrics.plasticity(scores_matrix(one, names)))
    return (
        arm,
        f"{grid['rates'][arm]:g}",
        shown(over_seeds(grid, arm, average)),
        shown(over_seeds(grid, arm, rise), ".1%"),
        shown(forgetting),
        shown(learned),
        f"{over_seeds(grid, arm, lambda one: cost(one)['tokens']).mean:,.0f}",
        f"{over_seeds(grid, arm, lambda one: cost(one)['cpu_s']).mean:,.0f}",
    )


def forgetting_table(grid: Record) -> str:
    """For each arm and fixed set, how far the loss ended above its least since the set's own stage (or the base)."""
    places = {ANCHOR: 0, **{name: at for at, name in enumerate(stages_of(grid)[:-1])}}
    sets = tuple(places)
    rows = (
        (arm, *(shown(over_seeds(grid, arm, _forgot(name, first))) for name, first in places.items()))
        for arm in arms(grid)
    )
    return markdown_table(("arm", *sets), rows)


def _forgot(name: str, first: int) -> Callable[[Record], float]:
    def figure(cell: Record) -> float:
        losses = [stage["scores"][name] for stage in cell["stages"][first:]]
        best = min([*losses, cell["base"][name]] if name == ANCHOR else losses)
        return float(losses[-1] - best)

    return figure


def domain_goals(grid: Record) -> list[Goal]:
    """What the papers and first trials led to expect of the domains, as far as the grid has the arms and stages."""
    names, there = stages_of(grid), arms(grid)
    found = []
    for name in (name for name in STRONG if name in names):
        stage = names.index(name)
        found.append(
            _goal(
                grid,
                f"anchor's rise after {name}: replay's share of naive's",
                "replay",
                partial(share_of_rise, stage=stage),
                0.10,
            )
        )
        found.append(
            _goal(
                grid,
                f"loss on {name} at its own stage: replay above naive",
                "replay",
                partial(_own_loss_above, stage=stage, name=name),
                0.01,
            )
        )
    found += [
        _goal(
            grid,
            f"anchor's rise after {WEAK}: share of naive's at {share}",
            f"replay {share}",
            partial(share_of_rise, stage=0),
            limit,
        )
        for share, limit in (("5 %", 0.60), ("25 %", 1 / 3))
        if f"replay {share}" in there
    ]
    found.append(
        _goal(grid, "anchor's rise at the end: half's share of naive's", "half", partial(share_of_rise, stage=-1), 0.90)
    )
    if grid["rates"].get("half, replay") == grid["rates"].get("replay"):
        halves = paired(grid, "half, replay", "replay", lambda a, b: rise(a) - rise(b))
        what = "anchor's rise at the end: half with replay less replay alone, at one rate"
        found.append(Goal(what=what, measured=halves, limit=0.0))
    return _measured([*found, *auto_goal(grid)])


def _own_loss_above(cell: Record, other: Record, *, stage: int, name: str) -> float:
    """How far a loss right after its own stage is above another cell's, relative."""
    return float(cell["stages"][stage]["scores"][name] / other["stages"][stage]["scores"][name] - 1)


def _measured(goals: Iterable[Goal]) -> list[Goal]:
    """Those whose arms were run."""
    return [goal for goal in goals if goal.measured.values]


def _goal(grid: Record, what: str, arm: str, figure: Callable[[Record, Record], float], limit: float) -> Goal:
    """Beside naive at the arm's own rate: at a lower rate anything forgets less."""
    naive = {
        (one["cell"]["seed"], one["cell"]["rate"]): one for one in (*cells(grid, "naive").values(), *grid["references"])
    }
    own = [(one, (seed, one["cell"]["rate"])) for seed, one in sorted(cells(grid, arm).items())]
    values = tuple(figure(one, naive[at]) for one, at in own if at in naive)
    return Goal(what=what, measured=Spread(values=values), limit=limit)


def auto_goal(grid: Record) -> list[Goal]:
    """Auto beside the best single choice, over the seeds of both; retraining on everything is none."""
    single = [arm for arm in arms(grid) if arm not in ("auto", "retrain")]
    above = {arm: paired(grid, "auto", arm, lambda a, b: average(a) / average(b) - 1) for arm in single}
    above = {arm: spread for arm, spread in above.items() if spread.values}
    if not above:
        return []
    best = max(above, key=lambda arm: above[arm].mean)
    what = f"average loss at the end: auto above the best single choice ({best})"
    return [Goal(what=what, measured=above[best], limit=0.01)]


# --- years -------------------------------------------------------------------------------------------------------


def scored_stages(cell: Record) -> dict[int, Record]:
    """Batches so far -> scores, for the stages that were scored."""
    return {int(stage["batches"]): stage["scores"] for stage in cell["stages"] if stage["scores"]}


def years_of(cell: Record) -> list[str]:
    """The fixed sets of the years, in order."""
    return sorted(name for name in end(cell) if name != ANCHOR)


def so_far(cell: Record, batches: int) -> float:
    """Mean loss over the anchor and the years that have come."""
    scores = scored_stages(cell)[batches]
    return statistics.fmean(scores[name] for name in (ANCHOR, *years_of(cell)[:batches]))


def temporal_table(grid: Record) -> str:
    """Average loss over anchor and years so far at every scored year, and cost, of every arm."""
    due = sorted(scored_stages(grid["cells"][0]))
    due = [at for at in due if all(at in scored_stages(cell) for cell in grid["cells"])]
    names = [f"year {at}" for at in due]
    rows = (
        (
            arm,
            f"{grid['rates'][arm]:g}",
            *(shown(over_seeds(grid, arm, partial(so_far, batches=at))) for at in due),
            shown(over_seeds(grid, arm, rise), ".1%"),
            f"{over_seeds(grid, arm, lambda one: cost(one)['tokens']).mean:,.0f}",
            f"{over_seeds(grid, arm, lambda one: cost(one)['cpu_s']).mean:,.0f}",
        )
        for arm in arms(grid)
    )
    return markdown_table(("arm", "rate", *names, "anchor's rise", "tokens", "CPU s"), rows)


def years_forgotten_table(grid: Record) -> str:
    """How far the anchor's and each span of years' mean loss ended above its least since the span was learned."""
    cell = grid["cells"][0]
    due, years = sorted(scored_stages(cell)), years_of(cell)
    spans: dict[str, tuple[Sequence[str], int]] = {ANCHOR: ((ANCHOR,), due[0])}
    for begin, last in pairwise([0, *due[:-1]]):
        spans[f"{years[begin]} to {years[last - 1]}"] = (years[begin:last], last)
    rows = (
        (
            arm,
            *(
                shown(over_seeds(grid, arm, partial(_years_forgot, names=names, since=since)))
                for names, since in spans.values()
            ),
        )
        for arm in arms(grid)
    )
    return markdown_table(("arm", *spans), rows)


def _years_forgot(cell: Record, names: Sequence[str], since: int) -> float:
    scored: list[float] = [
        statistics.fmean(scores[name] for name in names) for at, scores in scored_stages(cell).items() if at >= since
    ]
    before: list[float] = [cell["base"][ANCHOR]] if ANCHOR in names else []
    return scored[-1] - min([*scored, *before])


def temporal_goals(grid: Record) -> list[Goal]:
    """What is expected of many small increments."""
    due = sorted(scored_stages(next(iter(cells(grid, "retrain").values()), {"stages": []})))
    worst = lambda a, b: max(so_far(a, at) / so_far(b, at) - 1 for at in due)  # noqa: E731
    found = [
        Goal(
            what="average loss so far, auto above retraining at every fifth year (the worst of them)",
            measured=paired(grid, "auto", "retrain", worst),
            limit=0.01,
        ),
        Goal(
            what="tokens of auto, as a share of retraining's",
            measured=paired(grid, "auto", "retrain", lambda a, b: cost(a)["tokens"] / cost(b)["tokens"]),
            limit=1 / 2.6,
        ),
        Goal(
            what="average loss at the end: infinite schedule above re-warming",
            measured=paired(grid, "infinite", "replay", lambda a, b: average(a) / average(b) - 1),
            limit=0.0,
        ),
        *auto_goal(grid),
    ]
    return _measured(found)


# --- classes -----------------------------------------------------------------------------------------------------


def class_table(grid: Record) -> str:
    """Final and average accuracy, and forgetting, over all classes so far."""
    head = ("arm", "rate", "final", "average over stages", "forgetting", "CPU s")
    return markdown_table(head, (_class_row(grid, arm) for arm in arms(grid)))


def _class_row(grid: Record, arm: str) -> tuple[str, ...]:
    figures: tuple[Callable[[Record], float], ...] = (
        lambda one: metrics.average_over_time(accuracies(one)),
        lambda one: metrics.forgetting(accuracies(one)),
    )
    # What was trained once, at the end, has no stages to look back on.
    staged = all(len(one["stages"]) > 1 for one in cells(grid, arm).values())
    return (
        arm,
        f"{grid['rates'][arm]:g}",
        shown(over_seeds(grid, arm, average), ".1%"),
        *(shown(over_seeds(grid, arm, figure), ".1%") if staged else "" for figure in figures),
        f"{over_seeds(grid, arm, lambda one: cost(one)['cpu_s']).mean:,.0f}",
    )


def accuracies(cell: Record) -> np.ndarray:
    """Stages × tasks; a task that has not come yet counts as 0, above which every best of it is."""
    names = list(end(cell))
    return np.array([[stage["scores"].get(name, 0.0) for name in names] for stage in cell["stages"]])


def behind_released(grid: Record) -> Spread:
    """How much lower mos ends than its released form, which merges inside the forward pass."""
    return paired(grid, "mos", RELEASED, lambda a, b: average(b) - average(a))


def joint_arms(grid: Record) -> list[str]:
    """Ways to train on everything at the last stage."""
    return [arm for arm in arms(grid) if arm.startswith(JOINT)]


def upper_bound(grid: Record) -> str | None:
    """The better way of joint training, if it is above nearest mean: of too few documents or passes it is none."""
    best = max(joint_arms(grid), key=lambda arm: over_seeds(grid, arm, average).mean, default=None)
    if best is None:
        return None
    above = paired(grid, best, "nearest mean", lambda a, b: average(a) - average(b))
    return best if all(value > 0 for value in above.values) else None


def class_goals(grid: Record, *, near_joint: bool) -> list[Goal]:
    """mos beats both baselines; on clinc150 it comes near joint training, where that is an upper bound."""
    behind = lambda a, b: average(b) - average(a)  # noqa: E731
    found = [
        Goal(what=f"final accuracy: mos behind {other}", measured=paired(grid, "mos", other, behind), limit=0.0)
        for other in ("lora", "nearest mean")
    ]
    if near_joint and (bound := upper_bound(grid)):
        found.append(
            Goal(what=f"final accuracy: mos behind {bound}", measured=paired(grid, "mos", bound, behind), limit=0.05)
        )
    return _measured(found)


# --- the cost of half fine-tuning --------------------------------------------------------------------------------


def half_cost_table(measured: Record) -> str:
    """Step time and optimizer memory over full fine-tuning's, beside what was promised."""
    rows = [
        _half_row(f"{device}, {one['parameters'] / 1e6:.0f} M", arm, figures)
        for device, sizes in measured["sizes"].items()
        for one in sizes.values()
        for arm, figures in one["arms"].items()
    ]
    head = ("where", "what moves", "step over full", "bound", "optimizer memory over full", "trainable share + 0.02")
    words = (
        "The bound is of a step's products alone. What the optimizer and the clipping spare where nothing moves comes"
        " on top, so that a step may take less than its bound. What the bottom variant costs in quality is in the"
        " tables of domains that have it (`half, bottom`): `tests/benchmarks/results/domains-standard.md`."
    )
    return f"{words}\n\n{markdown_table(head, rows)}"


def _half_row(where: str, arm: str, figures: Record) -> tuple[str, ...]:
    step = figures["step_ratio"]
    return (
        where,
        arm,
        f"{step['median']:.3f} ({step['low']:.3f} to {step['high']:.3f})",
        f"{figures['step_bound']:.3f}",
        f"{figures['optimizer_ratio']:.3f}",
        f"{min(1.0, figures['trainable_share'] + 0.02):.3f}",
    )


# --- a mixing agent on domains that it never saw -----------------------------------------------------------------


def mixing_agent_table(measured: Record) -> str:
    """Every held-out environment's ways to choose, the greatest fall first, and the agent beside the guard in words."""
    return "\n\n".join(_held_out(measured, name, found) for name, found in measured["held_out"].items())


def tried(measured: Record) -> str:
    """How the agent fared, as ``strategies.agent.TRIED`` says it."""
    worlds = measured["held_out"]
    wins = sum(found["wins"] for found in worlds.values())
    runs = sum(len(found["facts"]["seeds"]) for found in worlds.values())
    return (
        f"an agent taught from {measured['agent']['lessons']['trajectories']} trajectories was"
        f" {_behind(worlds, 'agent')}, ahead in {wins} of {runs} runs"
    )


def untaught(measured: Record) -> str:
    """How Skill-It fared, as ``strategies.agent.UNTAUGHT`` says it."""
    worlds = measured["held_out"]
    (runs,) = {len(found["facts"]["seeds"]) for found in worlds.values()}
    return f"skill-it, the default, needs no tiny runs, but over {runs} runs was {_behind(worlds, 'skill-it')}"


def _behind(worlds: Record, policy: str) -> str:
    margins = {
        name: compared(found, found["guard"])["fall"] - compared(found, policy)["fall"]
        for name, found in worlds.items()
    }
    said = " and ".join(f"{margin:.2f} on {name}" for name, margin in margins.items())
    return f"behind the best constant mixture by {said} (standard deviations of loss)"


def compared(found: Record, policy: str) -> Record:
    """A way to choose among those that were compared in an environment."""
    (row,) = (row for row in found["rows"] if row["policy"] == policy)
    return dict(row)


def _spread(found: Record, policy: str) -> str:
    row = compared(found, policy)
    return f"{row['fall']:.3f} ± {row['fall_deviation']:.3f}"


def _loss(row: Record, name: str, *, earlier: str) -> float:
    """A figure of a result that may have been written under an earlier name."""
    return float(row[name] if name in row else row[earlier])


def _held_out(measured: Record, name: str, found: Record) -> str:
    world, lessons = found["world"], measured["agent"]["lessons"]
    rows = [
        (
            row["policy"],
            _spread(found, row["policy"]),
            f"{_loss(row, 'old_loss', earlier='source'):.4f}",
            f"{_loss(row, 'new_loss', earlier='target'):.4f}",
        )
        for row in found["rows"]
    ]
    head = ("how weights are chosen", "fall, deviations", "loss of old domains", "loss of new domains")
    words = (
        f"{name}: {' + '.join(world['sources'])} → {' + '.join(world['targets'])}, {found['facts']['tokens_a_run']:,}"
        f" tokens a run, {len(found['facts']['seeds'])} seeds, mean ± deviation. The agent learned from"
        f" {lessons['trajectories']} trajectories of other domains. Beside the best constant mixture, which is chosen"
        f" after the fact ({found['guard']}), its fall is {found['agent_minus_guard']:+.3f}, the greater one in"
        f" {found['wins']} of {len(found['facts']['seeds'])} runs."
    )
    return f"{words}\n\n{markdown_table(head, rows)}"
