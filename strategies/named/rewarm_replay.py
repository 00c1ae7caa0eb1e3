"""Re-warm, re-decay and replay (Ibrahim et al. 2024, arXiv 2403.08763), with one cosine or the infinite schedule."""

from __future__ import annotations

from strategies.contract import CosineSchedule, Explained, Plan, Signals, TrainTemplate
from strategies.named import resolve, share, trunk
from strategies.named.stage import STRATEGY, Stage, in_words, parents_cursor, resolve_stage, train_job
from strategies.settings import StrategySettings


class RewarmReplay:
    """From the live model, with old rows in every step in place of new ones, so that the stage never gets longer."""

    name = STRATEGY
    summary = "fine-tune the live model with a re-warmed learning rate and a share of old rows in every step"
    sources: tuple[str, ...] = ("arXiv 2403.08763", "arXiv 2308.04014")

    def plan(self, signals: Signals, settings: StrategySettings) -> Plan:
        if settings.schedule == "infinite":
            return trunk.plan(signals, settings)
        return _cosine_plan(signals, settings)


def _cosine_plan(signals: Signals, settings: StrategySettings) -> Plan:
    rate = resolve.peak_rate(signals.training, signals.task)
    stage = resolve_stage(signals, settings, new=signals.new, old=share.replayable(signals), rate=rate)
    stage = stage.with_values(optimizer=_optimizer(signals, settings), warmup_start=_warmup_start(signals, settings))
    reason = (
        f"Re-warms the live model to rate {stage.rate():g} and decays it over {stage.steps} steps, {in_words(stage)}."
    )
    return Plan(strategy=STRATEGY, jobs={"train": _train(stage)}, result="train", reason=reason, values=stage.values)


def _train(stage: Stage) -> TrainTemplate:
    kept = ("state/optimizer",) if stage.settings.keep_optimizer else ()
    return train_job(
        stage,
        _schedule(stage),
        init="@live/answer/model",
        optimizer="@live/state/optimizer" if stage.values["optimizer"].value == "continued" else None,
        cursor=parents_cursor(stage.signals),
        steps=stage.steps,
        state=("state/mixing", *kept),
    )


def _schedule(stage: Stage) -> CosineSchedule:
    start = stage.values["warmup_start"].value
    last = stage.signals.parent_settings.get("last_learning_rate") if start == "last_lr" else None
    return resolve.cosine(stage.values).model_copy(update={"warmup_start": start, "last_lr": last})


def _optimizer(signals: Signals, settings: StrategySettings) -> Explained:
    if not settings.keep_optimizer:
        return Explained(value="reset", origin=resolve.DEFAULT)
    if "state/optimizer" not in signals.parent_state:
        return Explained(value="reset", origin="keep_optimizer, but the live version left no moments")
    if signals.parent_settings.get("tuner", signals.training.tuner) != signals.training.tuner:
        return Explained(value="reset", origin="keep_optimizer, but the live version's moments are of another tuner")
    return Explained(value="continued", origin="settings: keep_optimizer")


def _warmup_start(signals: Signals, settings: StrategySettings) -> Explained:
    start = settings.warmup_start
    if start == "last_lr" and signals.parent_settings.get("last_learning_rate") is None:
        return Explained(value="zero", origin="last_lr, but the live version has no last rate")
    return Explained(value=start, origin=resolve.SETTINGS if start != "zero" else resolve.DEFAULT)
