"""The plan of one cosine: a single train job."""

from __future__ import annotations

from strategies.contract import Explained, Plan, Signals, TrainTemplate
from strategies.contract.graph import BANK, MODEL
from strategies.parts import CosineSchedule
from strategies.planning import common, merging, mixing
from strategies.planning.stage import Stage, grows, in_words, parents_cursor, resolve_stage, sources_of, train_job
from strategies.settings.composition import Composition
from strategies.settings.schedule import CosineSettings
from strategies.words import counted


def plan(signals: Signals, composition: Composition, schedule: CosineSettings, *, strategy: str) -> Plan:
    """Warm up, decay to the end of the stage; the parent's moments go on only where that was asked for."""
    new, old = sources_of(signals, composition)
    rate = common.peak_rate(signals.training, signals.task)
    stage = resolve_stage(signals, composition, strategy=strategy, new=new, old=old, rate=rate)
    stage = stage.with_values(
        optimizer=_optimizer(signals, composition), warmup_start=_warmup_start(signals, schedule.warmup_start)
    )
    main = _train(stage)
    stage = stage.with_values(**mixing.explained(stage, main.mixing))
    adapts = composition.selection.kind == "adapter"
    moved = "a new adapter" if adapts and composition.start == "live" else f"the {composition.start} model"
    reason = f"Re-warms {moved} to rate {stage.rate():g} and decays it over {counted(stage.steps, 'step')}"
    return merging.planned(stage, mixing.with_search(stage, main), reason=f"{reason}, {in_words(stage)}")


def _train(stage: Stage) -> TrainTemplate:
    kept = ("state/optimizer",) if stage.composition.keep_optimizer else ()
    cursor = parents_cursor(stage.signals) if stage.composition.start == "live" else None
    return train_job(
        stage,
        _schedule(stage),
        mixing.of(stage, cursor=cursor, steps=stage.steps),
        init=_init(stage),
        optimizer="@live/state/optimizer" if stage.values["optimizer"].value == "continued" else None,
        steps=stage.steps,
        state=("state/mixing", *kept),
    )


def _init(stage: Stage) -> str:
    """The model that training starts from: with a bank on top where a bank goes on."""
    goes_on = stage.composition.selection.kind == "adapter" and BANK in stage.signals.parent_answer
    return f"@{stage.composition.start}/{BANK if goes_on else MODEL}"


def _schedule(stage: Stage) -> CosineSchedule:
    start = stage.values["warmup_start"].value
    last = stage.signals.parent_settings.last_learning_rate if start == "last_lr" else None
    return common.cosine(stage.values).model_copy(update={"warmup_start": start, "last_lr": last})


def _optimizer(signals: Signals, composition: Composition) -> Explained:
    if not composition.keep_optimizer:
        return Explained(value="reset", origin=common.DEFAULT)
    if "state/optimizer" not in signals.parent_state:
        return Explained(value="reset", origin="keep_optimizer, but the live version left no moments")
    if "state/trunk" in signals.parent_state:
        return Explained(value="reset", origin="keep_optimizer, but the live version's moments are its trunk's")
    if grows(signals):
        return Explained(value="reset", origin="keep_optimizer, but there are no moments of the new classes")
    if signals.parent_settings.tuner not in (None, signals.training.tuner):
        return Explained(value="reset", origin="keep_optimizer, but the live version's moments are of another tuner")
    return Explained(value="continued", origin="settings: keep_optimizer")


def _warmup_start(signals: Signals, start: str) -> Explained:
    if start == "last_lr" and signals.parent_settings.last_learning_rate is None:
        return Explained(value="zero", origin="last_lr, but the live version has no last rate")
    return Explained(value=start, origin=common.SETTINGS if start != "zero" else common.DEFAULT)
