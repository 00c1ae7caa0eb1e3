"""The first rule of :mod:`strategies.chooser.rules` that holds and can be planned; a probe may overrule it.

Screws that the user turned hold whatever is chosen; a rule that asks for others comes after those that do not.
"""

from __future__ import annotations

from contextlib import suppress

from strategies.chooser import against
from strategies.chooser.candidates import Candidate, are_set, candidates
from strategies.chooser.case import Case
from strategies.chooser.rules import PROBED, RULES, Choice, Rule
from strategies.contract import Explained, Plan, Signals, TrainTemplate
from strategies.errors import BadPlan
from strategies.named.rewarm_replay import REWARM_REPLAY
from strategies.planning import refusals
from strategies.planning.common import SETTINGS
from strategies.settings import Json, Task, TrainingSettings
from strategies.settings.composition import SCREWS

NAME = "auto"
SUMMARY = "choose a strategy from what was measured, and say why"
SOURCES = ("arXiv 2308.04014", "arXiv 2403.08763", "arXiv 2404.18466", "arXiv 2412.09441")
USUAL = REWARM_REPLAY
"""What a screw is completed from that the user turned in part, before anything is chosen."""


def plan(signals: Signals, turned: Json) -> Plan:
    """The plan of what was chosen, with the reason in front."""
    choice = choose(signals, turned)
    made, label = choice.plan, choice.candidate.label
    beyond = _beyond_budget(Case(signals=signals, turned=turned), made)
    screws = {
        screw: made.values[screw].model_copy(update={"origin": SETTINGS if screw in turned else f"auto: {label}"})
        for screw in ("start", *SCREWS)
    }
    return made.model_copy(
        update={
            "reason": f"{label}, because {choice.reason}.{beyond} {made.reason}",
            "values": {
                **made.values,
                **screws,
                "strategy": Explained(value=made.strategy, origin=f"auto: {choice.reason}"),
                "choice": Explained(value=label, origin=f"auto: {choice.rule.name}"),
                "rule": Explained(value=choice.rule.name, origin=choice.rule.source),
            },
        }
    )


def rules() -> list[dict[str, str]]:
    """The table, in its order: when a rule holds, what it asks for, and who says so."""
    return [{"name": one.name, "when": one.when, "choice": one.candidate, "source": one.source} for one in RULES]


def check(turned: Json, training: TrainingSettings, task: Task) -> None:
    """Refuse turned screws that contradict each other or the task; raises BadPlan."""
    refusals.check(USUAL.composition.model_copy(update=turned), training, task)


def choose(signals: Signals, turned: Json) -> Choice:
    """What the rules say, unless a probe found something better; raises BadPlan where nothing can be planned."""
    case, choice = Case(signals=signals, turned=turned), by_rule(signals, turned)
    probe = signals.circumstances.probe
    found = None if probe is None or probe.chosen is None else candidates().get(probe.chosen)
    if probe is None or found is None:
        return choice
    if found.composition(turned) == choice.candidate.composition(turned):
        return _chosen(case, found, choice.rule, f"{choice.reason}, and {probe.reason}")
    reason = f"{probe.reason}; the rules alone say {choice.candidate.label}"
    try:
        return _chosen(case, found, PROBED, reason)
    except BadPlan:
        return choice


def by_rule(signals: Signals, turned: Json) -> Choice:
    """The first rule that holds and whose candidate can be planned; raises the last one's BadPlan where none can."""
    case, known = Case(signals=signals, turned=turned), candidates()
    asked = [
        (known[rule.candidate], rule) for rule in RULES if rule.stays or not known[rule.candidate].overruled(turned)
    ]
    *others, last = [(one, rule, reason) for one, rule in asked if (reason := rule.holds(case))]
    for one, rule, reason in others:
        with suppress(BadPlan):
            return _chosen(case, one, rule, _with_settings(one, turned, reason))
    one, rule, reason = last
    return _chosen(case, one, rule, _with_settings(one, turned, reason))


def _chosen(case: Case, candidate: Candidate, rule: Rule, reason: str) -> Choice:
    """Under the label of what the turned screws make of the candidate."""
    named = candidate.called(case.turned)
    return Choice(candidate=named, rule=rule, reason=reason, plan=named.plan(case.signals, case.turned))


def _with_settings(candidate: Candidate, turned: Json, reason: str) -> str:
    """The reason, and what the user set otherwise than the rule asks."""
    unsaid = {
        screw: value for screw, value in candidate.otherwise(turned).items() if f"strategy.{screw} is set" not in reason
    }
    return f"{reason}; {are_set(unsaid)}" if unsaid else reason


def alternatives(signals: Signals, turned: Json) -> list[dict[str, str]]:
    """What was turned down, each with the reason; what the turned screws make the same as the choice is not."""
    case, choice = Case(signals=signals, turned=turned), choose(signals, turned)
    chosen = choice.candidate.composition(turned)
    return [
        {"strategy": label, "reason": against.reason(case, one, choice)}
        for label, one in candidates().items()
        if one.composition(turned) != chosen
    ]


def _beyond_budget(case: Case, made: Plan) -> str:
    """A sentence on the plan's longest job, where even that is known to take more than a job may."""
    training, around = case.signals.training, case.signals.circumstances
    steps = max((job.steps for job in made.jobs.values() if isinstance(job, TrainTemplate)), default=0)
    over = case.over_budget(steps * training.train_batch_size)
    known = over is not None and around.tokens_per_s
    return f" Even so its longest job would overrun the budget{over}." if known else ""
