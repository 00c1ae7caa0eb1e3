"""A mixing agent beside other ways to choose weights, in tables and in the product's own sentences."""

from __future__ import annotations

from tests.benchmarks.figures import listed, markdown_table
from tests.benchmarks.reading import Record

SIDES = ("sources", "targets")


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
    world, lessons, facts = found["world"], measured["agent"]["lessons"], found["facts"]
    learned = {one for lesson in measured["collected"] for side in SIDES for one in lesson["world"][side]}
    unseen = [one for side in SIDES for one in world[side] if one not in learned]
    rows = [
        (
            row["policy"],
            _spread(found, row["policy"]),
            f"{_loss(row, 'old_loss', earlier='source'):.4f}",
            f"{_loss(row, 'new_loss', earlier='target'):.4f}",
        )
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
