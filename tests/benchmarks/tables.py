"""Tables of what was measured apart from the grids: the cost of half fine-tuning, and a mixing agent."""

from __future__ import annotations

from tests.benchmarks.figures import Goal, Spread, goals_table, listed, markdown_table
from tests.benchmarks.half_cost import MEMORY_GOAL
from tests.benchmarks.reading import Record

TIME_GOAL = 0.70
"""Of a full step, for the variant that freezes from the bottom."""
SIDES = ("sources", "targets")

# --- the cost of half fine-tuning --------------------------------------------------------------------------------


def half_cost_table(found: Record) -> str:
    """Step time and optimizer memory over full fine-tuning's, beside what was promised."""
    places = [
        (f"{device}, {one['parameters'] / 1e6:.0f} M", one["arms"])
        for device, sizes in found["measured"]["sizes"].items()
        for one in sizes.values()
    ]
    rows = [_half_row(where, arm, figures) for where, arms in places for arm, figures in arms.items()]
    head = ("where", "what moves", "step over full", "bound", "optimizer memory over full", "trainable share + 0.02")
    pairs = {len(figures["step_ratio"]["values"]) for _, arms in places for figures in arms.values()}
    words = (
        f"A step's time is the median of {max(pairs)} pairs of runs, each of one turn, with its 95 % bootstrap interval"
        " in brackets. The bound is of a step's products alone. What the optimizer and the clipping spare where nothing"
        " moves comes on top, so that a step may take less than its bound. What the bottom variant costs in quality is"
        " said with the domains (`half, bottom`)."
    )
    goals = [goal for where, arms in places for goal in _half_goals(where, arms)]
    return f"{words}\n\n{markdown_table(head, rows)}\n\n{goals_table(goals)}"


def _half_goals(where: str, arms: Record) -> list[Goal]:
    """A real 30 % of time from the bottom up; memory of what moves alone."""
    times = {arm: figures["step_ratio"]["median"] for arm, figures in arms.items() if arm == "bottom"}
    memory = {
        arm: (figures["optimizer_ratio"], figures["trainable_share"] + MEMORY_GOAL)
        for arm, figures in arms.items()
        if arm != "full"
    }
    return [
        *(_goal(f"{where}: step of `{arm}` over full", median, TIME_GOAL) for arm, median in times.items()),
        *(_goal(f"{where}: optimizer memory of `{arm}` over full", *found) for arm, found in memory.items()),
    ]


def _goal(what: str, measured: float, limit: float) -> Goal:
    return Goal(what=what, measured=Spread(values=(measured,)), limit=limit)


def _half_row(where: str, arm: str, figures: Record) -> tuple[str, ...]:
    step = figures["step_ratio"]
    return (
        where,
        arm,
        f"{step['median']:.3f} ({step['low']:.3f} to {step['high']:.3f})",
        f"{figures['step_bound']:.3f}",
        f"{figures['optimizer_ratio']:.3f}",
        f"{min(1.0, figures['trainable_share'] + MEMORY_GOAL):.3f}",
    )


# --- a mixing agent where it was not taught ----------------------------------------------------------------------


def mixing_agent_table(found: Record) -> str:
    """Every held-out environment's ways to choose, the greatest fall first, and the agent beside the guard in words."""
    measured, preset = found["measured"], found["preset"]
    words = (
        "`fall` is how far losses fell from the shared start, in standard deviations of each domain's loss over all"
        " compared runs, old and new domains weighing the same. All ways train on equal tokens; RegMix's mixture was"
        f" sought with {preset['regmix_runs']} tiny runs of {preset['regmix_tokens']:,} tokens besides."
    )
    tables = [_held_out(measured, name, one) for name, one in measured["held_out"].items()]
    return "\n\n".join([listed([words, _made_by(measured)]), *tables])


def _made_by(measured: Record) -> str:
    """The commits of what was kept from earlier runs, where they are known."""
    parts = [*measured["collected"], measured["agent"], *measured["held_out"].values()]
    commits = sorted({str(one) for part in parts for one in part.get("commits", ())})
    return f"Trajectories, agent and runs were made by {', '.join(f'`{one}`' for one in commits)}." if commits else ""


def tried(measured: Record) -> str:
    """How the agent fared, as ``strategies.agent.TRIED`` says it."""
    lessons, learning, worlds = measured["agent"]["lessons"], measured["agent"]["learning"], measured["held_out"]
    fared = "; ".join(
        f"on {name} losses fell by {compared(found, 'agent')['fall']:.3f} deviations under it, by"
        f" {compared(found, found['guard'])['fall']:.3f} under the best constant mixture ({found['guard']}), and it was"
        f" ahead in {found['wins']} of {len(found['facts']['seeds'])} runs"
        for name, found in worlds.items()
    )
    return (
        f"the agent that was tried was taught from {lessons['trajectories']} trajectories with"
        f" {learning['warm_steps']} + {learning['steps']} updates and compared on {len(worlds)}"
        f" set{'s' if len(worlds) > 1 else ''} of domains that it had not seen: {fared}"
    )


def untaught(measured: Record) -> str:
    """How Skill-It fared beside constant mixtures, as ``strategies.agent.UNTAUGHT`` says it."""
    fared = "; ".join(
        f"on {name} losses fell by {_spread(found, 'skill-it')} deviations under it, by"
        f" {_spread(found, found['guard'])} under the best constant mixture and by {_spread(found, 'replay-0.25')}"
        " under constant replay of 25 %"
        for name, found in measured["held_out"].items()
    )
    return (
        "skill-it is the default for what it does without, tiny runs and a mixture chosen beforehand, not for being"
        f" ahead: {fared}"
    )


def compared(found: Record, policy: str) -> Record:
    """A way to choose among those that were compared in an environment."""
    (row,) = (row for row in found["rows"] if row["policy"] == policy)
    return dict(row)


def _spread(found: Record, policy: str) -> str:
    row = compared(found, policy)
    return f"{row['fall']:.3f} ± {row['fall_deviation']:.3f}"


def _held_out(measured: Record, name: str, found: Record) -> str:
    world, lessons, facts = found["world"], measured["agent"]["lessons"], found["facts"]
    learned = {one for lesson in measured["collected"] for side in SIDES for one in lesson["world"][side]}
    unseen = [one for side in SIDES for one in world[side] if one not in learned]
    rows = [
        (row["policy"], _spread(found, row["policy"]), f"{row['source']:.4f}", f"{row['target']:.4f}")
        for row in found["rows"]
    ]
    head = ("how weights are chosen", "fall ± deviation over seeds", "loss of old domains", "loss of new domains")
    words = (
        f"{name}: {' + '.join(world['sources'])} → {' + '.join(world['targets'])}, {facts['tokens_a_run']:,}"
        f" tokens a run, {len(facts['seeds'])} seeds. The agent learned from {lessons['trajectories']} trajectories in"
        f" environments without {' and '.join(unseen)}. Its fall is {compared(found, 'agent')['fall']:.3f}, that of the"
        f" best constant mixture, which is chosen after the fact, {compared(found, found['guard'])['fall']:.3f}"
        f" ({found['guard']}); the agent's was the greater one in {found['wins']} of {len(facts['seeds'])} runs."
    )
    return f"{words}\n\n{markdown_table(head, rows)}"
