"""Which compositions a probe tries, and the train jobs of its rounds, all by value."""

from __future__ import annotations

import math

from strategies.chooser import auto
from strategies.chooser.candidates import HALF_REPLAY, INFINITE, candidates
from strategies.contract import Plan, Signals, SourceFacts, TrainTemplate
from strategies.contract.probe import Round, rounds, steps_of
from strategies.errors import BadPlan
from strategies.parts import ReplayMixing
from strategies.planning import common
from strategies.planning.stage import everything
from strategies.planning.trunk import in_one
from strategies.settings import Closed, Json
from strategies.settings.probe import ProbeSettings

SPARE = 1.5
"""How much longer a slice is than its share of the rows."""
ORDER = (INFINITE, "rewarm-replay", HALF_REPLAY, "rewarm-replay/half", "naive")
"""What is tried beside the rules' own choice, the most promising first. A retrain from the base, weights that follow
losses and a bank of adapters are not: what they are worth does not show in a short run."""


class Probing(Closed):
    """A probe as it would be run; without ``trials`` there is none, and ``reason`` says why."""

    incumbent: str
    """What the rules chose; it stays until the last round."""
    trials: dict[str, tuple[TrainTemplate, ...]]
    """Label -> its train job in each round."""
    rounds: tuple[Round, ...]
    steps: int
    """Of all short runs together."""
    stage_steps: int
    """Of the retrain itself, under the rules' choice."""
    slices: dict[str, int]
    """Source -> documents of it that the short runs draw from: as many as the longest of them can take."""
    documents: int
    reason: str


def plan(signals: Signals, turned: Json, settings: ProbeSettings) -> Probing:
    """The probe that the settings pay for; raises BadPlan where the rules' own choice cannot be planned."""
    choice = auto.by_rule(signals, turned)
    incumbent = choice.candidate.label
    stage_steps = sum(job.steps for job in choice.plan.jobs.values() if isinstance(job, TrainTemplate))
    budget = _budget_steps(signals, settings.budget, stage_steps)
    labels = _labels(signals, turned, incumbent)[: settings.candidates]
    paid = rounds(budget, len(labels), settings.keep) if incumbent in labels else ()
    # A run that is longer than the retrain would show what the retrain does not do.
    made = tuple(one._replace(steps=min(one.steps, stage_steps)) for one in paid)
    kept = labels[: made[0].candidates] if made else []
    longest = max((one.steps for one in made), default=0) * signals.training.train_batch_size
    return Probing(
        incumbent=incumbent,
        trials={label: tuple(_template(signals, label, turned, one.steps) for one in made) for label in kept},
        rounds=made,
        steps=steps_of(made),
        stage_steps=stage_steps,
        slices={one.name: _slice(one, longest) for one in everything(signals)},
        documents=settings.documents,
        reason=_in_words(kept, made, stage_steps) + _left_out(settings.candidates, len(labels), len(kept))
        if made
        else _why_none(labels, incumbent, budget),
    )


def _in_words(kept: list[str], made: tuple[Round, ...], stage_steps: int) -> str:
    shown = " then ".join(f"{one.candidates} × {one.steps}" for one in made)
    return (
        f"{', '.join(kept)}: {shown} steps, {steps_of(made)} in all,"
        f" {steps_of(made) / stage_steps:.0%} of the retrain's {stage_steps}"
    )


def _left_out(asked: int, showable: int, kept: int) -> str:
    """Why fewer are tried than were asked for."""
    if kept < showable:
        return f"; the budget does not pay for all {showable}: raise strategy.probe.budget"
    if showable < asked:
        return f"; of {asked} asked for a short run can show {showable}"
    return ""


def _slice(source: SourceFacts, rows: int) -> int:
    """Documents that hold ``rows`` rows, with some to spare, for they are not equally long."""
    return min(source.documents, math.ceil(SPARE * rows * source.documents / max(1, source.rows)) + 1)


def _budget_steps(signals: Signals, budget: float, stage_steps: int) -> int:
    """A share of the stage's steps; above 1 tokens, at the sources' tokens a row."""
    if budget <= 1:
        return int(budget * stage_steps)
    sources = everything(signals)
    per_row = sum(one.tokens for one in sources) / max(1, common.total_rows(sources))
    return int(budget / max(1.0, per_row * signals.training.train_batch_size))


def _labels(signals: Signals, turned: Json, incumbent: str) -> list[str]:
    """The rules' choice and others that train otherwise, each of which a short run can show."""
    seen: list[TrainTemplate] = []
    labels = []
    for label in dict.fromkeys((incumbent, *ORDER)):
        try:
            template = _template(signals, label, turned, None)
        except BadPlan:
            continue
        if template not in seen:
            seen.append(template)
            labels.append(label)
    return labels


def _template(signals: Signals, label: str, turned: Json, steps: int | None) -> TrainTemplate:
    """All that a candidate trains, as one job, with the whole of its schedule in ``steps``; it leaves nothing behind.

    Raises:
        BadPlan: it cannot be planned, or a short run cannot show it.
    """
    candidate = candidates()[label]
    if steps is not None:
        signals = signals.model_copy(update={"training": signals.training.model_copy(update={"max_steps": steps})})
    made = candidate.plan(signals, turned)
    template = _whole(made)
    if template is None or not template.init.startswith("@live/"):
        raise BadPlan(f"a short run cannot show what {label} is worth")
    if not isinstance(template.mixing, ReplayMixing):
        raise BadPlan("weights of domains follow what long runs show; a short run cannot show what they are worth")
    mixing = template.mixing.model_copy(update={"cursor": None})
    return template.model_copy(update={"state": (), "mixing": mixing})


def _whole(made: Plan) -> TrainTemplate | None:
    """The train job that a plan comes to, a trunk and its release in one; None where it takes other jobs."""
    match list(made.jobs.values()):
        case [TrainTemplate() as train]:
            return train
        case [TrainTemplate() as trunk, TrainTemplate() as release]:
            return in_one(trunk, release)
        case _:
            return None


def _why_none(labels: list[str], incumbent: str, budget: int) -> str:
    if incumbent not in labels:
        return f"no probe: a short run cannot show what {incumbent} is worth"
    if len(labels) == 1:
        return f"no probe: there is nothing else to try beside {incumbent}"
    return f"no probe: {budget} steps do not pay for two short runs; raise strategy.probe.budget (above 1: tokens)"
