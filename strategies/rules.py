"""auto's rules: what is measured, which composition that asks for, why, and who says so. The first that holds wins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from strategies.circumstances import EarlierDecision
from strategies.composition import Composition, EverythingSettings, InfiniteSettings, ReplaySettings
from strategies.contract import Signals
from strategies.named import DATA_MIXING, HALF_FINETUNE, MOS, NAIVE, RETRAIN, REWARM_REPLAY, Named
from strategies.plan import BANK
from strategies.planning import resolve, share
from strategies.planning.stage import everything
from strategies.settings import Json

FEW_STEPS = 8
"""Least steps of a stage of which 0.14 (METHODS 1.2) is a whole step of annealing; the shortest measured has nine."""
SEVERAL, SMALL = 3, 0.25
"""Earlier batches, and rows over all old ones, from which on re-warming at each of them costs more than it gives."""
TRUNK_MEASURED = (
    "this project's benchmarks of texts, one seed and 5 to 8 % more tokens, against re-warming: average loss 5.031 and"
    " 5.190 (five domains, 110 steps a stage), 2.580 and 2.807 (fifteen years, 25 steps), 5.560 and 5.695 (three"
    " domains, 45 steps), 3.835 and 4.127 (five years, 10 steps)"
)
"""tests/benchmarks/results/domains-standard.json and domains-quick.json."""
CHEAP = 1.25
"""Cost of a retrain over that of a stage, below which the union's better loss on the old is worth it."""

LOSSES = {
    "refused": "was refused for forgetting",
    "repaired": "was saved by a repair",
    "rolled back": "was rolled back",
}
"""Results of a decision that count against what it chose, in words."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A composition that auto may choose; ``against`` says why not, with figures."""

    label: str
    named: Named
    against: Callable[[Signals], str]
    screws: Json = field(default_factory=dict)

    def composition(self, turned: Json) -> Composition:
        """With the screws that the user turned, which hold whatever is chosen."""
        return self.named.composition.model_copy(update={**self.screws, **turned})


@dataclass(frozen=True, kw_only=True)
class Rule:
    """``holds`` gives the reason with figures, or None where the rule does not apply; ``when`` says it in general."""

    name: str
    when: str
    candidate: str
    holds: Callable[[Signals], str | None]
    source: str


# --- what is asked of the signals --------------------------------------------------------------------------------


def new_domains(signals: Signals) -> tuple[str, ...]:
    """New batches whose loss under the live model is above that of every known source by a strong shift."""
    known = [one.loss for one in share.replayable(signals) if one.loss is not None]
    if not known or signals.task == "classification":
        return ()
    limit = max(known) * (1 + share.STRONG_FROM)
    return tuple(one.name for one in signals.new if one.loss is not None and one.loss > limit)


def _rows(signals: Signals) -> tuple[int, int]:
    """New rows, and old ones with the anchor."""
    new = resolve.total_rows(signals.new)
    return new, resolve.total_rows(everything(signals)) - new


def _share(signals: Signals) -> float:
    asked = share.resolve_share(signals, None, old=share.replayable(signals))["replay"]
    return float(asked.value)


# --- when a rule holds -------------------------------------------------------------------------------------------


def _nothing_old(signals: Signals) -> str | None:
    return None if share.replayable(signals) else "there is nothing earlier to forget or to replay"


def _goes_on_with_a_bank(signals: Signals) -> str | None:
    if BANK not in signals.parent_answer:
        return None
    return "the live version is a bank of adapters, and only another adapter goes on from it"


def _new_classes(signals: Signals) -> str | None:
    around = signals.circumstances
    new, known = len(around.new_labels), len(around.known_labels)
    old = len(signals.labels) - new
    if signals.task != "classification" or not new or not old or new < known:
        return None
    if _overrun(signals):
        return None
    return (
        f"{new} of the {new + known} classes of the new batches are new beside {old} that must stay apart; the bank's"
        f" first adapter is taught all of them, and later classes come to adapters of their own"
        + (_retrain_over_budget(signals) or "")
    )


def _retrain_is_cheap(signals: Signals) -> str | None:
    new, old = _rows(signals)
    replay = _share(signals)
    if not signals.old or not new or (new + old) > CHEAP * new or old < replay * (new + old):
        return None
    held = old / (new + old)
    if _overrun(signals):
        return None
    return (
        f"{new} new rows are {new / max(1, old):.0f} times all old ones: starting again from the base costs"
        f" {old / new:.0%} more than going on, and {held:.0%} of its rows are old where the shift asks for {replay:.0%}"
        + (_retrain_over_budget(signals) or "")
    )


def _replay_is_not_enough(signals: Signals) -> str | None:
    worst = signals.circumstances.worst
    before = float(signals.parent_settings.get("replay") or 0.0)
    if before < share.STRONG or worst is None or worst.rise <= worst.tolerance / 2:
        return None
    unit = "of its accuracy" if worst.metric == "accuracy" else "on its loss"
    return (
        f"{worst.eval_set} is {worst.rise:.1%} {unit} worse than at best over {worst.versions} versions,"
        f" though {before:.0%} of each step was replay"
    )


def _replay_failed(signals: Signals) -> str | None:
    refused = [one for one in signals.refused if one.get("strategy") == REWARM_REPLAY.name]
    strong = [one for one in refused if one.get("only_forgot") and float(one.get("replay") or 0.0) >= share.STRONG]
    if strong:
        return f"the gate refused these batches with {float(strong[-1]['replay']):.0%} of replay for forgetting"
    return _losing_streak(signals)


def _losing_streak(signals: Signals) -> str | None:
    judged = [
        one
        for one in signals.circumstances.decisions
        if one.strategy == REWARM_REPLAY.name and one.result not in ("inconclusive", "failed")
    ][-2:]
    lost = [f"decision {one.decision} {how}" for one in judged if (how := _lost(one))]
    if len(lost) < 2:
        return None
    return f"replay alone did not keep the stream's last two versions: {', '.join(lost)}"


def _lost(one: EarlierDecision) -> str | None:
    """How a decision lost to forgetting; one refused for what it did not learn says nothing against replay."""
    return None if one.result == "refused" and not one.only_forgot else LOSSES.get(one.result)


def _trunk_of_texts(signals: Signals) -> str | None:
    if signals.task != "causal-lm" or not share.replayable(signals) or _short(signals):
        return None
    return (
        f"a stage of {_steps(signals)} steps of texts is released from a trunk that never decays, which forgot less"
        " than re-warming"
    )


def _many_small_increments(signals: Signals) -> str | None:
    new, old = _rows(signals)
    goes_on = signals.parent_settings.get("schedule") == "infinite"
    if goes_on and not _short(signals) and not new_domains(signals):
        return "the live version has a trunk on a constant rate, which goes on without warming up again"
    if _few_or_large_increments(signals):
        return None
    return (
        f"{new} new rows are {new / old:.0%} of {old} old ones after {len(signals.old)} earlier batches,"
        " and each re-warming would raise the loss on all of them"
    )


def _few_or_large_increments(signals: Signals) -> str | None:
    """What is short of many small increments."""
    (new, old), batches = _rows(signals), len(signals.old)
    if batches < SEVERAL:
        return f"{batches} earlier batches are few; it asks for {SEVERAL}"
    if new > SMALL * old:
        return f"{new} new rows are {new / max(1, old):.0%} of {old} old ones; it asks for at most {SMALL:.0%}"
    if short := _short(signals):
        return short
    far = new_domains(signals)
    return f"{far[0]} is a new domain, and the schedule is tried without a shift alone" if far else None


def _short(signals: Signals) -> str | None:
    """That a stage has too few steps to be annealed."""
    steps = _steps(signals)
    return f"a stage of {steps} steps is short; it asks for {FEW_STEPS}" if steps < FEW_STEPS else None


def _steps(signals: Signals) -> int:
    new, _ = _rows(signals)
    return int(resolve.steps(signals.training, new).value) if new else 0


def _something_old(signals: Signals) -> str | None:
    old = share.replayable(signals)
    if not old:
        return None
    what = "the anchor" if signals.anchor in old else f"{len(old)} earlier batches"
    measured = share.shift(signals)
    shift = "" if measured is None else f"; the new data's loss is {_beside(measured.value)} theirs"
    return f"{what} must not be forgotten and can be replayed{shift}"


def _beside(shift: float) -> str:
    return f"{abs(shift):.0%} {'below' if shift < 0 else 'above'}"


# --- why not -----------------------------------------------------------------------------------------------------


def _against_naive(signals: Signals) -> str:
    tokens = sum(one.tokens for one in share.replayable(signals))
    return f"without replay the loss on what came before ({tokens} tokens) rises; 5 % of replay takes most of that away"


def _against_replay(signals: Signals) -> str:
    if not share.replayable(signals):
        return "there is nothing to replay"
    if why := _replay_failed(signals) or _replay_is_not_enough(signals):
        return f"replay alone was not enough: {why}"
    return f"replay of {_share(signals):.0%} in every step is not what the measurements ask for first"


def _against_half_replay(signals: Signals) -> str:
    return (
        f"half of each step would be old rows where {_share(signals):.0%} is asked for; the new data's loss would end"
        " 0.03 to 0.06 higher (arXiv 2403.08763, Table 2: 2.54 against 2.51 at 5 %, 1.22 against 1.16 at 25 %)"
    )


def _against_infinite(signals: Signals) -> str:
    _, old = _rows(signals)
    if not old:
        return "there is no row of stages before"
    short = _short(signals) if signals.task == "causal-lm" else _few_or_large_increments(signals)
    return short or "the schedule would hold, but an earlier rule does"


def _against_half(signals: Signals) -> str:
    worst = signals.circumstances.worst
    if worst is None:
        return "nothing was forgotten yet that replay does not keep; half of the matrices would learn less of the new"
    moved = f"the worst set, {worst.eval_set}, has moved by {worst.rise:+.1%} of {worst.tolerance:.1%} allowed"
    if worst.rise > worst.tolerance / 2:
        before = float(signals.parent_settings.get("replay") or 0.0)
        return f"{moved} with {before:.0%} of replay, and more replay comes before fewer matrices"
    return f"replay keeps what came before: {moved}; half of the matrices would learn less of the new"


def _against_retrain(signals: Signals) -> str:
    new, old = _rows(signals)
    cost = f"it would train the base on {new + old} rows instead of {new}"
    return cost + (_retrain_over_budget(signals) or "")


def over_budget(signals: Signals, rows: float) -> str | None:
    """How long a job of ``rows`` rows takes, if that is more than it may; where no speed is known, that."""
    around = signals.circumstances
    sources = everything(signals)
    have = resolve.total_rows(sources)
    if not around.max_hours or not have:
        return None
    if not around.tokens_per_s:
        return f", speed unknown against {around.max_hours:g} h allowed"
    hours = sum(one.tokens for one in sources) * rows / have / around.tokens_per_s / 3600
    return f", {hours:.1f} h of {around.max_hours:g} h allowed" if hours > around.max_hours else None


def _retrain_over_budget(signals: Signals) -> str | None:
    return over_budget(signals, sum(_rows(signals)) * signals.training.num_train_epochs)


def _overrun(signals: Signals) -> str | None:
    """By how much a retrain is known to overrun the budget; nothing is known before a speed was measured."""
    return _retrain_over_budget(signals) if signals.circumstances.tokens_per_s else None


def _against_data_mixing(signals: Signals) -> str:
    old = share.replayable(signals)
    if not old:
        return "there is nothing old to weigh the new data against"
    return (
        f"replay of {_share(signals):.0%} weighs {len(old)} old sources by the rows seen of them; that weights which"
        " follow losses do better has not been shown here, so only a name asks for it"
    )


def _against_mos(signals: Signals) -> str:
    if signals.task == "classification" and BANK not in signals.parent_answer:
        return "the live version is no bank of adapters that could go on"
    return _against_bank(signals)


def _against_new_bank(signals: Signals) -> str:
    if BANK in signals.parent_answer:
        return "the live version is a bank already; another one would be taught everything again"
    if over := _overrun(signals):
        return f"its first adapter would be taught everything again{over}"
    return _against_bank(signals)


def _against_bank(signals: Signals) -> str:
    new, known = len(signals.circumstances.new_labels), len(signals.circumstances.known_labels)
    if signals.task != "classification":
        return (
            f"a bank answers through a router, and its source measures it on classes alone; for {signals.task} nothing"
            " shows yet that it keeps more than replay, so only a name asks for it"
        )
    return f"{new} new classes beside {known} known ones do not need adapters of their own"


# --- the tables --------------------------------------------------------------------------------------------------

INFINITE = "rewarm-replay/infinite"
HALF_REPLAY = "half-finetune/replay"
NEW_BANK = "mos/base"
HALF_ON_TRACE = (
    "arXiv 2404.18466: on TRACE, replay with half of the matrices frozen moves backward transfer"
    " from +1.4 to +2.1 (7b) and from -0.6 to +1.6 (13b)"
)


def candidates() -> dict[str, Candidate]:
    """What auto chooses among, by label."""
    made = (
        Candidate(label="naive", named=NAIVE, against=_against_naive),
        Candidate(label="rewarm-replay", named=REWARM_REPLAY, against=_against_replay),
        Candidate(
            label=HALF_REPLAY,
            named=HALF_FINETUNE,
            screws={"mixing": ReplaySettings()},
            against=_against_half,
        ),
        Candidate(
            label="rewarm-replay/half",
            named=REWARM_REPLAY,
            screws={"mixing": ReplaySettings(share=0.5)},
            against=_against_half_replay,
        ),
        Candidate(
            label=INFINITE, named=REWARM_REPLAY, screws={"schedule": InfiniteSettings()}, against=_against_infinite
        ),
        Candidate(label="data-mixing", named=DATA_MIXING, against=_against_data_mixing),
        Candidate(label="mos", named=MOS, against=_against_mos),
        Candidate(
            label=NEW_BANK,
            named=MOS,
            screws={"start": "base", "mixing": EverythingSettings()},
            against=_against_new_bank,
        ),
        Candidate(label="retrain", named=RETRAIN, against=_against_retrain),
    )
    return {one.label: one for one in made}


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
        source="nothing to replay, nothing to lose",
    ),
    Rule(
        name="new classes",
        when="of the classes that arrive at least half are new, the model knows others, and there is no bank yet",
        candidate=NEW_BANK,
        holds=_new_classes,
        source="arXiv 2412.09441, the paper's table: CUB, last stage, 90.12 against 13.96 of fine-tuning",
    ),
    Rule(
        name="retraining is cheap",
        when=f"a retrain costs at most {CHEAP:g} times a stage, holds enough old rows, and fits the budget",
        candidate="retrain",
        holds=_retrain_is_cheap,
        source="arXiv 2403.08763, Table 2: the union's loss on the old is 0.06 below that of 5 % replay",
    ),
    Rule(
        name="replay failed",
        when=f"the gate refused {share.STRONG:.0%} of replay, or replay alone lost two versions running to forgetting",
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
        name="many small increments",
        when="no batch is of a new domain, and either the live version has a trunk or there are"
        f" {SEVERAL} earlier batches or more, new rows are at most {SMALL:.0%} of the old, and a stage has"
        f" {FEW_STEPS} steps or more",
        candidate=INFINITE,
        holds=_many_small_increments,
        source="arXiv 2403.08763: each re-warming costs a transient rise of the loss, 0.10 and more; its schedules were"
        " tried without a shift",
    ),
    Rule(
        name="replay is not enough",
        when=f"something was forgotten though {share.STRONG:.0%} of each step was replay",
        candidate=HALF_REPLAY,
        holds=_replay_is_not_enough,
        source=HALF_ON_TRACE,
    ),
    Rule(
        name="something to protect",
        when="there is an anchor or an earlier batch",
        candidate="rewarm-replay",
        holds=_something_old,
        source="arXiv 2403.08763, Tables 2 and 4: 5 % of replay takes away 0.19 to 0.21 of 0.23 to 0.27 of forgetting",
    ),
)
