"""Why auto did not choose a candidate: one sentence with figures, true beside what it chose."""

from __future__ import annotations

from collections.abc import Callable

from strategies.chooser.candidates import HALF_REPLAY, INFINITE, NEW_BANK, Candidate, are_set, candidates
from strategies.chooser.case import Case
from strategies.chooser.rules import PROBED, Choice, few_or_large_increments, short_of_retraining, short_stage
from strategies.contract.graph import BANK
from strategies.errors import BadPlan
from strategies.planning import share
from strategies.words import counted

HALF = 0.5
"""Share of old rows in rewarm-replay/half."""
NOTHING_OLD = "there is nothing earlier"
TRUNK_BESIDE_HALF = (
    "on texts a trunk forgot less than replay with half of the matrices frozen, 0.026 against 0.188 nats a token over"
    " five domains"
)
TRUNK_BESIDE_REWARMING = (
    "on texts a trunk ended at a lower average loss over old and new than re-warming with replay; over five domains it"
    " forgot less (0.026 against 0.202 nats a token), over fifteen years as much of the anchor (0.923 against 0.914)"
)
"""docs/benchmarks.md, domains and years."""


def reason(case: Case, candidate: Candidate, choice: Choice) -> str:
    """Why not: what the probe found, what the settings say, what cannot be done, or what the measurements say."""
    if tried := _tried(case, candidate):
        return tried
    if overruled := candidate.overruled(case.turned):
        return are_set(overruled)
    if candidate.label in (NEW_BANK, "mos") and (needless := _needless_bank(case)):
        return needless
    if candidate.label == "mos" and choice.candidate.label == NEW_BANK:
        return "no bank takes over the classes of the live version's head, so that the first one begins at the base"
    try:
        candidate.plan(case.signals, case.turned)
    except BadPlan as error:
        set_by_user = candidate.otherwise(case.turned)
        return f"it cannot be planned: {error}" + (f"; {are_set(set_by_user)}" if set_by_user else "")
    return REASONS[candidate.label](case, choice)


def _tried(case: Case, candidate: Candidate) -> str | None:
    probe = case.signals.circumstances.probe
    composition, known = candidate.composition(case.turned), candidates()
    tried = [
        one
        for one in ([] if probe is None else probe.trials)
        if one.candidate in known and known[one.candidate].composition(case.turned) == composition
    ]
    if not tried:
        return None
    last = tried[-1]
    judged = "" if last.judged is None else f", {last.judged:+.2%} on unseen documents"
    return f"the probe scored it {last.score:+.2%} after {counted(last.steps, 'step')}{judged}; lower is better"


def _first(choice: Choice) -> str:
    """What the choice goes by, where nothing more is to be said against another."""
    if choice.rule is PROBED:
        return f"the probe did not try it and found {choice.candidate.label} best of what it tried"
    return f"the measurements ask for {choice.candidate.label} first ({choice.rule.name})"


def _naive(case: Case, choice: Choice) -> str:
    if not case.old or choice.candidate.composition(case.turned).mixing.kind == "new":
        return _re_warming(case, choice)
    tokens = sum(one.tokens for one in case.old)
    return (
        f"without replay nothing keeps what came before ({counted(tokens, 'token')}); of language models' forgetting"
        " 5 % of replay took most away (arXiv 2403.08763)"
    )


def _replay(case: Case, choice: Choice) -> str:
    if not case.old:
        return f"{NOTHING_OLD} to replay"
    return _re_warming(case, choice)


def _re_warming(case: Case, choice: Choice) -> str:
    """Against one that re-warms all matrices, beside a trunk or beside half of them."""
    chosen = choice.candidate.composition(case.turned)
    if choice.rule is PROBED:
        return _first(choice)
    if chosen.schedule.kind == "infinite":
        measured = TRUNK_BESIDE_REWARMING if case.signals.task == "causal-lm" else choice.reason
        return f"it would warm the rate up anew in every stage: {measured}"
    if chosen.selection.kind == "half":
        return f"replay alone was not enough: {choice.reason}"
    return _first(choice)


def _half(case: Case, choice: Choice) -> str:
    worst = case.signals.circumstances.worst
    learns_less = "half of the matrices would learn less of the new"
    if not case.old:
        return f"{NOTHING_OLD} that frozen matrices would keep, and {learns_less}"
    if worst is None:
        return f"no forgetting was measured yet, and {learns_less}"
    if worst.rise <= 0:
        return f"nothing was forgotten ({worst.eval_set} is {worst.change} than at best before), and {learns_less}"
    moved = f"the worst set, {worst.eval_set}, is {worst.change} than at best ({worst.allowed} allowed)"
    return _half_though_forgotten(case, choice, moved) if worst.is_beyond_half else f"{moved}, and {learns_less}"


def _half_though_forgotten(case: Case, choice: Choice, moved: str) -> str:
    after = f"{moved} after {case.replayed:.0%} of replay"
    if case.replayed < share.STRONG:
        return f"{after}; half of the matrices are frozen once {share.STRONG:.0%} was not enough"
    if choice.candidate.label == INFINITE and case.signals.task == "causal-lm":
        return f"{after}, but {TRUNK_BESIDE_HALF}"
    return _first(choice)


def _half_alone(case: Case, choice: Choice) -> str:
    if not case.old or choice.candidate.composition(case.turned).mixing.kind == "new":
        return _half(case, choice)
    return "without replay the frozen half of the matrices alone would keep what came before"


def _half_replay(case: Case, choice: Choice) -> str:
    if not case.old:
        return f"{NOTHING_OLD} to replay"
    asked = _asked(case, choice)
    if asked >= HALF:
        return f"{asked:.0%} of replay is asked for already; {_re_warming(case, choice)}"
    slower = f"half of each step would be old rows where {asked:.0%} is asked for"
    if case.signals.task == "classification":
        return f"{slower}, and less of the new would be learnt"
    return (
        f"{slower}; in the source the new data's loss ended 0.03 to 0.06 higher (arXiv 2403.08763, Table 2: 2.54"
        " against 2.51 at 5 %, 1.22 against 1.16 at 25 %)"
    )


def _asked(case: Case, choice: Choice) -> float:
    """Share of replay that the chosen plan has, or that is asked for where it has none."""
    return float(choice.plan.values["replay"].value) or case.share


def _infinite(case: Case, choice: Choice) -> str:
    if not case.old:
        return f"{NOTHING_OLD} whose loss a warm-up would raise"
    short = short_stage(case) if case.signals.task == "causal-lm" else few_or_large_increments(case)
    return short or _first(choice)


def _data_mixing(case: Case, choice: Choice) -> str:
    if not case.old:
        return f"{NOTHING_OLD} to weigh the new data against"
    if choice.candidate.composition(case.turned).mixing.kind == "weighted":
        return _re_warming(case, choice)
    return (
        f"that weights which follow losses do better than replay of {counted(len(case.old), 'old source')} by the rows"
        " seen of each has not been shown here, so only a name asks for it"
    )


def _retrain(case: Case, choice: Choice) -> str:
    if choice.candidate.composition(case.turned).mixing.kind == "everything":
        return "it would train the base on the same rows, without what the live version knows"
    return short_of_retraining(case) or _first(choice)


def _needless_bank(case: Case) -> str | None:
    """Why the data asks for no bank of adapters."""
    around, task = case.signals.circumstances, case.signals.task
    if BANK in case.signals.parent_answer:
        return None
    if task != "classification":
        return (
            f"a bank answers through a router, and its source measures it on classes alone; for {task} nothing shows"
            " yet that it keeps more than replay, so only a name asks for it"
        )
    new, known = len(around.new_labels), len(around.known_labels)
    if new == len(case.signals.labels):
        return "no class is known yet that new ones must be kept apart from"
    if not new or new < known:
        share_of_new = f"here {new} of {new + known}"
        return f"it is asked for where at least half of the classes in the new batches are new, {share_of_new}"
    return None


def _mos(_case: Case, choice: Choice) -> str:
    return _first(choice)


def _new_bank(case: Case, choice: Choice) -> str:
    if BANK in case.signals.parent_answer:
        return "the live version is a bank already; another one would be taught everything again"
    if over := case.overrun:
        return f"its first adapter would be taught everything again{over}"
    return _first(choice)


REASONS: dict[str, Callable[[Case, Choice], str]] = {
    "naive": _naive,
    "rewarm-replay": _replay,
    "half-finetune": _half_alone,
    HALF_REPLAY: _half,
    "rewarm-replay/half": _half_replay,
    INFINITE: _infinite,
    "data-mixing": _data_mixing,
    "mos": _mos,
    NEW_BANK: _new_bank,
    "retrain": _retrain,
}
"""By the candidate's label."""
