"""The plan of one train job without replay, which naive and retrain share."""

from __future__ import annotations

from strategies import selection
from strategies.contract import Explained, Plan, ReplayMixing, Signals, SourceFacts, TrainTemplate
from strategies.named import resolve


def values(signals: Signals, *, strategy: str, sources: tuple[SourceFacts, ...]) -> dict[str, Explained]:
    """Values of one cosine over ``sources``; the rate is halved until it differs from every refused one."""
    refused = [settings.get("learning_rate") for settings in resolve.refusals(signals, strategy)]
    rate = resolve.halved_until_new(resolve.peak_rate(signals.training, signals.task), refused)
    return {
        "strategy": Explained(value=strategy, origin=resolve.SETTINGS),
        **resolve.common_values(signals, rate),
        **resolve.cosine_values(signals, resolve.total_rows(sources)),
    }


def plan(
    signals: Signals, *, init: str, sources: tuple[SourceFacts, ...], values: dict[str, Explained], reason: str
) -> Plan:
    """The plan that ``values`` describe: from ``init``, all ``sources`` jointly, fresh optimizer."""
    training = signals.training
    job = TrainTemplate(
        init=init,
        mixing=ReplayMixing(new=resolve.names(sources), batch=training.train_batch_size, order=values["order"].value),
        selection=selection.from_training(training),
        schedule=resolve.cosine(values),
        objective=resolve.objective(signals),
        steps=values["steps"].value,
        training=training,
    )
    return Plan(strategy=values["strategy"].value, jobs={"train": job}, result="train", reason=reason, values=values)
