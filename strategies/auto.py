"""The chooser: the first rule of :mod:`strategies.rules` that holds and can be planned; a probe may overrule it.

Screws that the user turned hold whatever is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass

from strategies import planning
from strategies.contract import Explained, Plan, Signals, TrainTemplate
from strategies.errors import BadPlan
from strategies.named import REWARM_REPLAY
from strategies.planning import compose
from strategies.rules import RULES, Candidate, Rule, candidates, over_budget
from strategies.settings import Json, Task, TrainingSettings

NAME = "auto"
SUMMARY = "choose a strategy from what was measured, and say why"
SOURCES = ("arXiv 2403.08763", "arXiv 2404.18466", "arXiv 2412.09441")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A composition, the rule that asked for it, and why in one sentence."""

    candidate: Candidate
    rule: Rule
    reason: str


def plan(signals: Signals, turned: Json) -> Plan:
    """The plan of what was chosen, with the reason in front."""
    choice = choose(signals, turned)
    made = planned(signals, choice.candidate, turned)
    chosen = Explained(value=made.strategy, origin=f"auto: {choice.reason}")
    rule = Explained(value=choice.rule.name, origin=choice.rule.source)
    return made.model_copy(
        update={
            "reason": f"{made.strategy}, because {choice.reason}.{_beyond_budget(signals, made)} {made.reason}",
            "values": {**made.values, "strategy": chosen, "rule": rule},
        }
    )


def rules() -> list[dict[str, str]]:
    """The table, in its order: when a rule holds, what it asks for, and who says so."""
    return [{"name": one.name, "when": one.when, "choice": one.candidate, "source": one.source} for one in RULES]


def check(turned: Json, training: TrainingSettings, task: Task) -> None:
    """Refuse turned screws that contradict each other or the task; raises BadPlan."""
    compose.check(REWARM_REPLAY.composition.model_copy(update=turned), training, task)


def choose(signals: Signals, turned: Json) -> Choice:
    """What the rules say, unless a probe found something better."""
    choice = by_rule(signals, turned)
    probe = signals.circumstances.probe
    found = None if probe is None or probe.chosen is None else candidates().get(probe.chosen)
    if probe is None or found is None or not _can_be_planned(signals, found, turned):
        return choice
    if found.label == choice.candidate.label:
        return Choice(candidate=found, rule=choice.rule, reason=f"{choice.reason}, and {probe.reason}")
    return Choice(candidate=found, rule=PROBED, reason=f"{probe.reason}; the rules alone say {choice.candidate.label}")


def by_rule(signals: Signals, turned: Json) -> Choice:
    """The first rule that holds and whose candidate can be planned; the last one where none can."""
    known = candidates()
    holding = [
        Choice(candidate=known[rule.candidate], rule=rule, reason=reason)
        for rule in RULES
        if (reason := rule.holds(signals))
    ]
    return next((one for one in holding if _can_be_planned(signals, one.candidate, turned)), holding[-1])


def alternatives(signals: Signals, turned: Json) -> list[dict[str, str]]:
    """What was turned down, each with the reason."""
    chosen = choose(signals, turned).candidate.label
    return [
        {"strategy": label, "reason": _against(signals, one, turned)}
        for label, one in candidates().items()
        if label != chosen
    ]


def planned(signals: Signals, candidate: Candidate, turned: Json) -> Plan:
    """The candidate's plan; raises BadPlan where there is none."""
    return planning.plan(signals, candidate.composition(turned), strategy=candidate.named.name)


def _beyond_budget(signals: Signals, made: Plan) -> str:
    """A sentence on the plan's longest job, where even that is known to take more than a job may."""
    steps = max((job.steps for job in made.jobs.values() if isinstance(job, TrainTemplate)), default=0)
    over = over_budget(signals, steps * signals.training.train_batch_size)
    known = over is not None and signals.circumstances.tokens_per_s
    return f" Even so its longest job would overrun the budget{over}." if known else ""


def _can_be_planned(signals: Signals, candidate: Candidate, turned: Json) -> bool:
    return _obstacle(signals, candidate, turned) is None


def _obstacle(signals: Signals, candidate: Candidate, turned: Json) -> str | None:
    try:
        planned(signals, candidate, turned)
    except BadPlan as error:
        return str(error)
    return None


def _against(signals: Signals, candidate: Candidate, turned: Json) -> str:
    probe = signals.circumstances.probe
    tried = [] if probe is None else [one for one in probe.trials if one.candidate == candidate.label]
    if tried:
        last = tried[-1]
        judged = "" if last.judged is None else f", {last.judged:+.2%} on unseen documents"
        return f"the probe scored it {last.score:+.2%} after {last.steps} steps{judged}; lower is better"
    obstacle = _obstacle(signals, candidate, turned)
    return candidate.against(signals) if obstacle is None else f"it cannot be planned: {obstacle}"


PROBED = Rule(
    name="probe",
    when="a probe found something better",
    candidate="",
    holds=lambda _signals: None,
    source="successive halving: Jamieson and Talwalkar 2016, arXiv 1502.07943",
)
