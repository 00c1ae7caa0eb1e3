"""An adapter a task and its bank as a plan, for as long as no named strategy makes one (METHODS 3.6, 3.7)."""

from __future__ import annotations

from strategies.contract import Explained, Plan, Signals, TrainTemplate
from strategies.parts import (
    AdapterSelection,
    LocalObjective,
    ReplayMixing,
    TaskMeanConsolidation,
    TaskObjective,
)
from strategies.planning import resolve


def plan(signals: Signals) -> Plan:
    """One train job: adapter ``tN`` from ``tN-1``, merged every epoch; the bank routes."""
    training = signals.training
    rate = resolve.peak_rate(training, signals.task)
    values = {**resolve.common_values(signals, rate), **resolve.cosine_values(signals, resolve.total_rows(signals.new))}
    classes = signals.task == "classification"
    job = TrainTemplate(
        init="@live/answer/model",
        mixing=ReplayMixing(
            new=resolve.names(signals.new), batch=training.train_batch_size, order=values["order"].value
        ),
        selection=AdapterSelection(
            name=f"t{signals.stage}",
            start=f"t{signals.stage - 1}" if signals.stage > 1 else None,
            lora=training.lora,
        ),
        schedule=resolve.cosine(values),
        objective=LocalObjective() if classes else TaskObjective(kind=signals.task),
        consolidation=TaskMeanConsolidation(),
        steps=values["steps"].value,
        training=training,
    )
    values["strategy"] = Explained(value="mos", origin="benchmark")
    return Plan(strategy="mos", jobs={"train": job}, result="train", reason="An adapter a task.", values=values)
