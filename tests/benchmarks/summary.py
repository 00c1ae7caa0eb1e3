"""What the main benchmark's cells come to: pure functions from the result's JSON to figures and goals."""

from __future__ import annotations

import statistics
from typing import Any

from tests.benchmarks.figures import Goal, Spread, goals_line, goals_table, markdown_table
from tests.benchmarks.inputs import ANCHOR, BATCHES, DOMAINS
from tests.benchmarks.reading import average
from tests.benchmarks.text_tables import rise

Record = dict[str, Any]
NEW_LOSS_GOALS = {"speeches-en": 0.03, "novels-de": 0.06, "code-python": 0.06}
TOKENS_GOAL = 0.40
RISE_GOALS = {"speeches-en": 0.40, "code-python": 0.15}
AVERAGE_GOAL = 0.03


def by_seed(result: Record, arm: str) -> list[Record]:
    """The arm's cells, in the order of the seeds."""
    return sorted(
        (one for one in result["cells"] if one["cell"]["arm"] == arm), key=lambda one: int(one["cell"]["seed"])
    )


def pairs(result: Record, arm: str, other: str) -> list[tuple[Record, Record]]:
    """Cells of two arms with the same seed."""
    return list(zip(by_seed(result, arm), by_seed(result, other), strict=True))


def own_loss(cell: Record, stage: int) -> float:
    """Loss on a stage's own domain right after it."""
    return float(cell["stages"][stage]["scores"][BATCHES[stage]])


def tokens(cell: Record) -> int:
    """Tokens trained on over all stages."""
    return sum(int(stage["tokens"]) for stage in cell["stages"])


def goals(result: Record) -> list[Goal]:
    """Everything that is claimed, beside what was measured."""
    replay, naive, last = "rewarm-replay", "naive", len(BATCHES) - 1
    against_naive, against_all = pairs(result, replay, naive), pairs(result, replay, "retrain")
    found = [
        Goal(
            what=f"rise of {ANCHOR} after {BATCHES[stage]}, as a share of naive's",
            measured=Spread(values=tuple(rise(a, stage) / rise(b, stage) for a, b in against_naive)),
            limit=RISE_GOALS[BATCHES[stage]],
        )
        for stage in (0, last)
    ]
    found += [
        Goal(
            what=f"loss on {domain} at its own stage, above naive's",
            measured=Spread(values=tuple(own_loss(a, stage) / own_loss(b, stage) - 1 for a, b in against_naive)),
            limit=NEW_LOSS_GOALS[domain],
        )
        for stage, domain in enumerate(BATCHES)
    ]
    apart = tuple(average(a, last, DOMAINS) / average(b, last, DOMAINS) - 1 for a, b in against_all)
    ratio = tuple(tokens(a) / tokens(b) for a, b in against_all)
    return [
        *found,
        Goal(
            what="average loss over all domains at the end, above retraining on everything",
            measured=Spread(values=apart),
            limit=AVERAGE_GOAL,
        ),
        Goal(what="tokens trained on, as a share of retraining's", measured=Spread(values=ratio), limit=TOKENS_GOAL),
    ]


def markdown(result: Record) -> str:
    """The result as tables."""
    preset = result["preset"]
    seeds, on = len(preset["seeds"]), result["machine"]
    head = (
        f"Preset `{preset['name']}`: {preset['tokens']:,} tokens a source, {seeds} seed{'s' if seeds > 1 else ''}, "
        f"learning rate {result['learning_rate']:g}, commit `{result['commit']}`, "
        f"torch {on['torch']} on {on['cores']} cores, {result['wall_s'] / 60:.0f} minutes."
    )
    return "\n\n".join([head, _losses(result), _goals(result), _gate(result)])


def line(result: Record) -> str:
    """How much was carried out, how many goals were met, and which were missed."""
    arms = {one["cell"]["arm"] for one in result["cells"]}
    seeds = len(result["preset"]["seeds"])
    return f"{len(arms)} arms, {seeds} seed{'s' if seeds > 1 else ''}: {goals_line(goals(result))}"


def _losses(result: Record) -> str:
    base = result["cells"][0]["base"]
    rows = [_row("base", [base[domain] for domain in DOMAINS], 0)]
    for arm in dict.fromkeys(cell["cell"]["arm"] for cell in result["cells"]):
        cells = by_seed(result, arm)
        ends = [statistics.fmean(cell["stages"][-1]["scores"][domain] for cell in cells) for domain in DOMAINS]
        rows.append(_row(arm, ends, round(statistics.fmean(tokens(cell) for cell in cells))))
    words = "Loss (nats a token) on the fixed validation files after the last batch, mean over seeds:"
    return f"{words}\n\n{markdown_table(('arm', *DOMAINS, 'average', 'tokens'), rows)}"


def _row(name: str, losses: list[float], count: int) -> tuple[str, ...]:
    return (name, *(f"{loss:.3f}" for loss in [*losses, statistics.fmean(losses)]), f"{count:,}")


def _goals(result: Record) -> str:
    return "`rewarm-replay` beside the others (± is the 95 % interval over seeds):\n\n" + goals_table(goals(result))


def _gate(result: Record) -> str:
    """What the gate, which only recorded here, said."""
    rows = ["| arm | " + " | ".join(BATCHES) + " |", "| --- |" + " --- |" * len(BATCHES)]
    for arm in dict.fromkeys(cell["cell"]["arm"] for cell in result["cells"]):
        cells = by_seed(result, arm)
        said = [", ".join(cell["stages"][stage]["gate"] for cell in cells) for stage in range(len(BATCHES))]
        rows.append(f"| {arm} | {' | '.join(said)} |")
    words = "What the gate said of each candidate, seed by seed (`gate.mode: record`: all earlier ones went live):"
    return f"{words}\n\n" + "\n".join(rows)
