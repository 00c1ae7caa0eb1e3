"""The infinite schedule's life cycle (METHODS 1.2): a trunk that never decays, and a release annealed from it.

The version's state is the trunk's: its weights, its optimizer and its cursor. Rows that only the release took are not
in the trunk; they are ``left_over``, and the next stage takes as many of that batch as new rows, once, while the batch
is replayed like any other. Where domains are weighted the release keeps the weights that the trunk ended with, and its
rows are the next stage's old ones.
"""

from __future__ import annotations

import math
from typing import Any

from strategies.contract import Explained, Plan, Signals, SourceFacts, TrainTemplate
from strategies.contract.graph import ADAPTER
from strategies.errors import BadPlan
from strategies.mixing.replay import old_rows
from strategies.parts import InfiniteSchedule, Mixing, ReplayMixing
from strategies.planning import common, merging, mixing, share
from strategies.planning.reweighting import MIXTURE
from strategies.planning.stage import (
    Stage,
    decay,
    grows,
    in_words,
    parents_cursor,
    resolve_stage,
    sources_of,
    train_job,
)
from strategies.settings.composition import Composition
from strategies.settings.consolidation import KeepConsolidation
from strategies.settings.schedule import InfiniteSettings
from strategies.words import counted

TRUNK, RELEASE = "trunk", "release"
STATE = ("state/trunk", "state/optimizer", "state/mixing")


def plan(signals: Signals, composition: Composition, settings: InfiniteSettings, *, strategy: str) -> Plan:
    """Jobs trunk and release; the trunk of the live version is resumed where the rate allows it."""
    stage, obstacle = _stage(signals, composition, settings, strategy=strategy)
    stage = _with_lengths(stage, settings, resumed=obstacle is None)
    stage = stage.with_values(
        optimizer=Explained(value="reset" if obstacle else "continued", origin="infinite schedule"),
        trunk=Explained(value="new" if obstacle else "resumed", origin=obstacle or "the live version's trunk"),
        left_over=_left_over(stage),
    )
    stage = stage.with_values(**decay(composition.consolidation, _length(stage, "anneal")))
    trunk = _trunk(stage, settings, resumed=obstacle is None)
    stage = stage.with_values(**mixing.explained(stage, trunk.mixing))
    jobs = {**mixing.with_search(stage, trunk, name=TRUNK), RELEASE: _release(stage, settings, trunk)}
    return merging.planned(stage, jobs, reason=_reason(stage, obstacle), last=RELEASE)


def _stage(
    signals: Signals, composition: Composition, settings: InfiniteSettings, *, strategy: str
) -> tuple[Stage, str | None]:
    """The stage that resumes the trunk; or, with what stands against that, one that begins a new trunk."""
    new, old = sources_of(signals, composition)
    obstacle = _not_infinite(signals)
    if obstacle is None:
        carried = () if composition.mixing.kind == "weighted" else _carried(signals)
        resumed = resolve_stage(
            signals, composition, strategy=strategy, new=(*new, *carried), old=old, rate=_trunks_peak(signals)
        )
        resumed = _with_constant_rate(resumed, settings)
        obstacle = _too_fast(resumed)
        if obstacle is None:
            return resumed, None
    rate = common.peak_rate(signals.training, signals.task)
    fresh = resolve_stage(signals, composition, strategy=strategy, new=new, old=old, rate=rate)
    return _with_constant_rate(fresh, settings), obstacle


def _not_infinite(signals: Signals) -> str | None:
    parent = signals.parent_settings
    if not {"state/trunk", "state/optimizer"} <= set(signals.parent_state):
        return "the live version has no trunk"
    same = parent.schedule == "infinite" and parent.tuner == signals.training.tuner
    if not same or parent.learning_rate is None or parent.constant_learning_rate is None:
        return "the live version was trained otherwise"
    if grows(signals):
        return "there are new classes, for which the trunk's optimizer has no moments"
    if signals.training.tuner == "lora" and ADAPTER not in signals.parent_answer:
        return "the live version is a merged model, on which the trunk's adapter was not trained"
    return None


def _too_fast(stage: Stage) -> str | None:
    """Going on above the trunk's rate without warm-up would bring the loss spike back."""
    trunks = stage.signals.parent_settings.constant_learning_rate
    assert trunks is not None
    rate = stage.rate("constant_learning_rate")
    return None if rate <= trunks else f"its rate {rate:g} is above the live trunk's {trunks:g}, which takes a warm-up"


def _trunks_peak(signals: Signals) -> Explained:
    if signals.training.learning_rate is not None:
        return common.peak_rate(signals.training, signals.task)
    return Explained(value=signals.parent_settings.learning_rate, origin="the live version's trunk")


def _carried(signals: Signals) -> tuple[SourceFacts, ...]:
    """Sources with left-over rows, as far as those go."""
    left = signals.parent_settings.left_over
    return tuple(_only(one, left[one.name]) for one in share.replayable(signals) if left.get(one.name))


def _only(source: SourceFacts, rows: int) -> SourceFacts:
    return source.model_copy(update={"rows": min(rows, source.rows)})


def _with_constant_rate(stage: Stage, settings: InfiniteSettings) -> Stage:
    rate = stage.rate() * settings.constant_ratio
    return stage.with_values(constant_learning_rate=Explained(value=rate, origin="constant_ratio of the peak"))


def _with_lengths(stage: Stage, settings: InfiniteSettings, *, resumed: bool) -> Stage:
    """Lengths of the phases; they add up to the stage's steps, at least one each for trunk and release."""
    total = max(2, stage.steps)
    anneal = min(max(1, round(settings.anneal * total)), total - 1)
    warmup = 0 if resumed else min(int(stage.values["warmup_steps"].value), total - anneal)
    cooldown = 0 if resumed else min(round(settings.cooldown * total), total - anneal - warmup)
    lengths = {
        "steps": total,
        "warmup_steps": warmup,
        "cooldown_steps": cooldown,
        "constant_steps": total - anneal - warmup - cooldown,
        "anneal_steps": anneal,
    }
    origin = f"infinite schedule, {'resumed' if resumed else 'first stage'}"
    return stage.with_values(**{name: Explained(value=value, origin=origin) for name, value in lengths.items()})


def _length(stage: Stage, phase: str) -> int:
    return int(stage.values[f"{phase}_steps"].value)


def _trunk_steps(stage: Stage) -> int:
    return stage.steps - _length(stage, "anneal")


def _left_over(stage: Stage) -> Explained:
    if stage.domains:
        return Explained(value={}, origin="what the release alone takes, later trunks find among the old domains")
    return Explained(value=_not_taken(stage), origin="new rows that the trunk does not take")


def _not_taken(stage: Stage) -> dict[str, int]:
    """Rows of the decision's own batches that only the release takes, in proportion to the batches' sizes.

    Rows that replay displaced from trunk and release alike are not among them: no schedule makes up for those.
    """
    available = common.total_rows(stage.new)
    after_trunk = max(0, available - _new_rows(stage, _trunk_steps(stage)))
    left = min(after_trunk, _new_rows(stage, _length(stage, "anneal")))
    return {source.name: math.ceil(left * source.rows / available) for source in stage.signals.new if left}


def _new_rows(stage: Stage, steps: int) -> int:
    """New rows of a job of so many steps."""
    batch = stage.signals.training.train_batch_size
    return batch * steps - old_rows(stage.share, batch, steps)


def _schedule(stage: Stage, settings: InfiniteSettings, **lengths: int) -> InfiniteSchedule:
    phases: dict[str, Any] = {"warmup": 0, "cooldown": 0, "constant": 0, "anneal": 0, **lengths}
    return InfiniteSchedule(
        **phases,
        lr=stage.rate(),
        constant_lr=stage.rate("constant_learning_rate"),
        min_lr=stage.rate("min_learning_rate"),
        style=settings.style,
        timescale=settings.timescale,
    )


def _trunk(stage: Stage, settings: InfiniteSettings, *, resumed: bool) -> TrainTemplate:
    """The trunk goes on from its own weights in the next stage: only its release is averaged or merged."""
    lengths = {phase: _length(stage, phase) for phase in ("warmup", "cooldown", "constant")}
    made = train_job(
        stage,
        _schedule(stage, settings, **lengths),
        _mixing(stage),
        init="@live/state/trunk" if resumed else "@live/answer/model",
        optimizer="@live/state/optimizer" if resumed else None,
        steps=_trunk_steps(stage),
        state=(*STATE, MIXTURE) if stage.domains else STATE,
    )
    return made.model_copy(update={"consolidation": KeepConsolidation()})


def _release(stage: Stage, settings: InfiniteSettings, trunk: TrainTemplate) -> TrainTemplate:
    anneal = _length(stage, "anneal")
    return train_job(
        stage,
        _schedule(stage, settings, anneal=anneal),
        mixing.goes_on(trunk.mixing, trunk=TRUNK),
        init="@trunk/answer/model",
        optimizer="@trunk/state/optimizer",
        steps=anneal,
    )


def in_one(trunk: TrainTemplate, release: TrainTemplate) -> TrainTemplate:
    """What a trunk and its release do, as one job that leaves the release alone.

    Raises:
        BadPlan: they are not a trunk and its release.
    """
    first, last = trunk.schedule, release.schedule
    if not isinstance(first, InfiniteSchedule) or not isinstance(last, InfiniteSchedule):
        raise BadPlan("two jobs are one only where they are a trunk and its release")
    schedule = first.model_copy(update={"anneal": last.anneal})
    whole = {"schedule": schedule, "steps": trunk.steps + release.steps, "consolidation": release.consolidation}
    return trunk.model_copy(update=whole)


def _mixing(stage: Stage) -> Mixing:
    """The stage's mixing; of an earlier batch replay takes no more as new than its release alone took."""
    made = mixing.of(stage, cursor=parents_cursor(stage.signals), steps=_trunk_steps(stage))
    own = common.names(stage.signals.new)
    carried = {source.name: source.rows for source in stage.new if source.name not in own}
    return made.model_copy(update={"most": carried}) if isinstance(made, ReplayMixing) else made


def _reason(stage: Stage, obstacle: str | None) -> str:
    steps, rate = _trunk_steps(stage), stage.rate("constant_learning_rate")
    start = (
        f"Begins a trunk, because {obstacle}: {counted(steps, 'step')} down to rate {rate:g}"
        if obstacle
        else f"Continues the trunk for {counted(steps, 'step')} at rate {rate:g}"
    )
    anneal = counted(_length(stage, "anneal"), "step")
    return f"{start}, then releases it after {anneal} of annealing, {in_words(stage)}"
