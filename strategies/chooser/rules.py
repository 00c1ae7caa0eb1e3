"""auto's rules: what is measured, which composition that asks for, why, and who says so. The first that holds wins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from strategies.chooser.candidates import HALF_REPLAY, INFINITE, NEW_BANK, Candidate
from strategies.chooser.case import Case, batches, new_domains
from strategies.contract import Explained, Plan
from strategies.contract.circumstances import EarlierDecision
from strategies.contract.graph import BANK
from strategies.named.rewarm_replay import REWARM_REPLAY
from strategies.planning import common, share
from strategies.words import counted

FEW_STEPS = 8
"""Least steps of a stage of which 0.14 (METHODS 1.2) is a whole step of annealing; the shortest measured has nine."""
SEVERAL, SMALL = 3, 0.25
"""Earlier batches, and rows over all old ones, from which on re-warming at each of them costs more than it gives."""
CHEAP = 1.25
"""Cost of a retrain over that of a stage, below which the union's better loss on the old is worth it."""
TRUNK_MEASURED = (
    "this project's benchmarks of texts, three seeds of the first two and one of the others, 5 to 8 % more tokens:"
    " average loss with the trunk and with re-warming 5.034 and 5.186 (five domains, 110 steps a stage), 2.569 and"
    " 2.809 (fifteen years, 25 steps), 5.560 and 5.695 (three domains, 45 steps), 3.835 and 4.127 (five years, 10"
    " steps); forgetting over the five domains 0.026 with the trunk, 0.202 with re-warming and 0.188 with half of the"
    " matrices frozen besides"
)
"""tests/benchmarks/results/domains-standard.json and domains-quick.json."""
HALF_ON_TRACE = (
    "arXiv 2404.18466: on TRACE, replay with half of the matrices frozen moves backward transfer"
    " from +1.4 to +2.1 (7b) and from -0.6 to +1.6 (13b)"
)

UNJUDGED = ("inconclusive", "failed")
"""Results of a decision that say nothing about what it chose."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """``holds`` gives the reason with figures, or None where the rule does not apply; ``when`` says it in general."""

    name: str
    when: str
    candidate: str
    holds: Callable[[Case], str | None]
    source: str
    stays: bool = False
    """Whether it holds, too, where the user's screws leave nothing of what it asks for; of each case one does."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A composition with its plan, the rule that asked for it, and why in one sentence."""

    candidate: Candidate
    rule: Rule
    reason: str
    plan: Plan


# --- when a rule holds -------------------------------------------------------------------------------------------


def _nothing_old(case: Case) -> str | None:
    return None if case.old else "there is nothing earlier to forget or to replay"


def _goes_on_with_a_bank(case: Case) -> str | None:
    if BANK not in case.signals.parent_answer:
        return None
    return "the live version is a bank of adapters, and only another adapter goes on from it"


def _new_classes(case: Case) -> str | None:
    around = case.signals.circumstances
    new, known = len(around.new_labels), len(around.known_labels)
    old = len(case.signals.labels) - new
    if case.signals.task != "classification" or not new or not old or new < known or case.overrun:
        return None
    return (
        f"{new} of the {counted(new + known, 'class', many='classes')} in the new batches are new beside {old} that"
        " must stay apart; the bank's first adapter is taught all of them, and later classes come to adapters of their"
        f" own{case.retrain_over_budget or ''}"
    )


def _retrain_is_cheap(case: Case) -> str | None:
    if short_of_retraining(case):
        return None
    new, old = case.new_rows, case.old_rows
    return (
        f"{counted(new, 'new row')} are {new / max(1, old):.0f} times all old ones: starting again from the base costs"
        f" {_times(case) - 1:.0%} more than going on, and {old / (new + old):.0%} of its rows are old where"
        f" {case.share:.0%} is asked for{case.retrain_over_budget or ''}"
    )


def _times(case: Case) -> float:
    """Steps of training on everything over those of training on the new rows."""
    return case.steps_on_all / int(common.steps(case.signals.training, case.new_rows).value)


def short_of_retraining(case: Case) -> str | None:
    """What a retrain is short of, where it is not cheap enough."""
    new, old = case.new_rows, case.old_rows
    if not new or not any(one.rows for one in case.signals.old):
        return "there is no earlier batch that it would train on again"
    cost = f"it would train the base on {counted(new + old, 'row')} instead of {new}{case.retrain_over_budget or ''}"
    needed = common.steps(case.signals.training.model_copy(update={"max_steps": None}), new + old).value
    if case.steps_on_all < needed:
        return f"training.max_steps holds it to {case.steps_on_all} of the {needed} steps that all rows together take"
    if _times(case) > CHEAP:
        return f"{cost}; at most {CHEAP:g} times as many are worth it"
    if old < case.share * (new + old):
        return f"only {old / (new + old):.0%} of its rows would be old where {case.share:.0%} is asked for"
    return cost if case.overrun else None


def _replay_failed(case: Case) -> str | None:
    refused = [one for one in case.signals.refused if one.strategy == REWARM_REPLAY.name]
    strong = [
        one.replay for one in refused if one.only_forgot and one.replay is not None and one.replay >= share.STRONG
    ]
    if strong:
        return f"the gate refused these batches with {strong[-1]:.0%} of replay for forgetting"
    return _losing_streak(case)


def _losing_streak(case: Case) -> str | None:
    judged = [one for one in case.signals.circumstances.decisions if one.result not in UNJUDGED][-2:]
    lost = [how for one in judged if one.replay and (how := _lost(one))]
    if len(lost) < 2 or not any(_forgot(one) for one in judged):
        return None
    return f"the last two decisions that were judged replayed old rows and did not stand: {', '.join(lost)}"


def _forgot(one: EarlierDecision) -> bool:
    """Whether the gate found that the candidate forgot, and only that."""
    return one.result == "repaired" or (one.result == "refused" and one.only_forgot)


def _lost(one: EarlierDecision) -> str | None:
    """How a decision did not stand; one refused for what it did not learn says nothing against replay."""
    what = f"decision {one.decision} ({one.choice or one.strategy}, {one.replay or 0.0:.0%} replay)"
    if one.result == "rolled back":
        return f"{what} was rolled back ({one.reason})"
    if not _forgot(one):
        return None
    return f"{what} {'was saved by a repair' if one.result == 'repaired' else 'was refused for forgetting'}"


def _trunk_of_texts(case: Case) -> str | None:
    if case.signals.task != "causal-lm" or not case.old or short_stage(case):
        return None
    return (
        f"a stage of {counted(case.steps, 'step')} of texts is released from a trunk that never decays, which ended at"
        " a lower loss over old and new texts than re-warming, both with replay"
    )


def _replay_is_not_enough(case: Case) -> str | None:
    worst = case.signals.circumstances.worst
    if case.replayed < share.STRONG or worst is None or not worst.is_beyond_half:
        return None
    return (
        f"{worst.eval_set} is {worst.change} than at best over {counted(worst.versions, 'version')}, though"
        f" {case.replayed:.0%} of each step was replay"
    )


def _many_small_increments(case: Case) -> str | None:
    if case.goes_on and not short_stage(case) and not new_domains(case.signals):
        return "the live version has a trunk on a constant rate, which goes on without warming up again"
    if few_or_large_increments(case):
        return None
    return (
        f"{counted(case.new_rows, 'new row')} are {case.new_rows / case.old_rows:.0%} of {case.old_rows} old ones after"
        f" {batches(len(case.signals.old))}, and each re-warming would raise the loss on all of them"
    )


def few_or_large_increments(case: Case) -> str | None:
    """What is short of many small increments."""
    new, old, before = case.new_rows, case.old_rows, len(case.signals.old)
    if before < SEVERAL:
        return f"{batches(before)} {'is' if before == 1 else 'are'} few; it asks for {SEVERAL}"
    if new > SMALL * old:
        return f"{new} new rows are {new / max(1, old):.0%} of {old} old ones; it asks for at most {SMALL:.0%}"
    if short := short_stage(case):
        return short
    far = new_domains(case.signals)
    return f"{far[0]} is a new domain, and the schedule is tried without a shift alone" if far else None


def short_stage(case: Case) -> str | None:
    """That a stage has too few steps to be annealed."""
    if case.steps >= FEW_STEPS:
        return None
    return f"a stage of {counted(case.steps, 'step')} is short; it asks for {FEW_STEPS}"


def _something_old(case: Case) -> str | None:
    if not case.old:
        return None
    mixing = case.turned.get("mixing")
    if mixing is not None and mixing.kind != "replay":
        return f"strategy.mixing is set to {mixing.kind}, whatever is measured"
    what = "the anchor" if case.signals.anchor in case.old else batches(len(case.old))
    measured = share.shift(case.signals)
    return f"{what} must not be forgotten and can be replayed{'' if measured is None else _shift(measured)}"


def _shift(measured: Explained) -> str:
    shift = float(measured.value)
    return f"; the loss is {abs(shift):.0%} {'lower' if shift < 0 else 'higher'} on the new data ({measured.origin})"


# --- the table ---------------------------------------------------------------------------------------------------

RULES = (
    Rule(
        name="a bank goes on",
        when="the live version is a bank of adapters",
        candidate="mos",
        holds=_goes_on_with_a_bank,
        source="arXiv 2412.09441",
    ),
    Rule(
        name="nothing to protect",
        when="there is neither an anchor nor an earlier batch",
        candidate="naive",
        holds=_nothing_old,
        stays=True,
        source="nothing to replay, nothing to lose",
    ),
    Rule(
        name="new classes",
        when="of the classes that arrive at least half are new, the model knows others, there is no bank yet, and"
        " teaching it everything again fits the budget",
        candidate=NEW_BANK,
        holds=_new_classes,
        source="arXiv 2412.09441, the paper's table: CUB, last stage, 90.12 against 13.96 of fine-tuning",
    ),
    Rule(
        name="retraining is cheap",
        when=f"there is an earlier batch, and a retrain costs at most {CHEAP:g} times a stage, holds as large a share"
        " of old rows as is asked for, and fits the budget",
        candidate="retrain",
        holds=_retrain_is_cheap,
        source="arXiv 2403.08763, Table 2: the union's loss on the old is 0.06 below that of 5 % replay",
    ),
    Rule(
        name="replay failed",
        when=f"the gate refused these batches for forgetting with {share.STRONG:.0%} of replay or more, or neither of"
        " the last two decisions that were judged stood though both replayed old rows: at least one was refused for"
        " forgetting or saved by a repair, the other was so too or was rolled back",
        candidate=HALF_REPLAY,
        holds=_replay_failed,
        source=HALF_ON_TRACE,
    ),
    Rule(
        name="a trunk of texts",
        when=f"the task is causal-lm, there is something to replay, and a stage has {FEW_STEPS} steps or more",
        candidate=INFINITE,
        holds=_trunk_of_texts,
        source=TRUNK_MEASURED,
    ),
    Rule(
        name="replay is not enough",
        when=f"something has lost more than half of what the gate allows though {share.STRONG:.0%} of each step or more"
        " was replay; texts on a trunk, which forgot less than this, stay there",
        candidate=HALF_REPLAY,
        holds=_replay_is_not_enough,
        source=HALF_ON_TRACE,
    ),
    Rule(
        name="many small increments",
        when="no batch is of a new domain, a stage has"
        f" {FEW_STEPS} steps or more, and either the live version has a trunk or there are {SEVERAL} earlier batches or"
        f" more and new rows are at most {SMALL:.0%} of the old",
        candidate=INFINITE,
        holds=_many_small_increments,
        source="arXiv 2308.04014: each re-warming costs a transient rise of the loss, 0.10 and more; arXiv 2403.08763"
        " tried the schedule without a shift",
    ),
    Rule(
        name="something to protect",
        when="there is an anchor or an earlier batch",
        candidate="rewarm-replay",
        holds=_something_old,
        stays=True,
        source="arXiv 2403.08763, Tables 2 and 4: 5 % of replay takes away 0.19 to 0.21 of 0.23 to 0.27 of forgetting",
    ),
)

PROBED = Rule(
    name="probe",
    when="a probe found something better",
    candidate="",
    holds=lambda _case: None,
    source="successive halving: Jamieson and Talwalkar 2016, arXiv 1502.07943",
)
