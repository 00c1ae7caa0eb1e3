"""A stage of mos: which adapter it trains, on what, and what it refuses to go on from."""

from typing import Any

import pytest

from strategies.chooser import choice
from strategies.chooser.choice import StrategySettings
from strategies.errors import BadPlan
from strategies.settings import Json, Task
from strategies.settings.consolidation import TaskMeanConsolidation
from strategies.settings.objective import LocalObjective
from tests.strategies.makers import adapter_selection, plan, replay_mixing, signals, source, train_job, values

CLASSES: Json = {"task": "classification", "anchor": None, "old": ()}
BANK = ("answer/bank", "answer/model")


def later(first: Json, **changes: Any) -> Json:
    """Signals of the stage after one whose plan resolved ``first``."""
    known = {"parent_answer": BANK, "parent_settings": first, "parent_labels": ("a", "b"), "parent_state": ()}
    return {**CLASSES, **known, **changes}


def test_the_first_stage_trains_a_first_adapter_on_the_live_model() -> None:
    job = train_job(plan(signals(**CLASSES), name="mos"))
    assert job.init == "@live/answer/model"
    assert (adapter_selection(job).name, adapter_selection(job).start) == ("t1", None)
    assert (replay_mixing(job).new, replay_mixing(job).old) == (("batch-3",), {})
    assert job.consolidation == TaskMeanConsolidation()
    assert job.objective == LocalObjective(orthogonality=0.0), "there are no earlier classes to keep apart from"


def test_the_next_stage_starts_from_the_banks_last_adapter() -> None:
    first = values(plan(signals(**CLASSES), name="mos"))
    made = plan(signals(**later(first, stage=7)), name="mos")
    job = train_job(made)
    assert job.init == "@live/answer/bank"
    assert (adapter_selection(job).name, adapter_selection(job).start) == ("t2", "t1")
    assert job.objective == LocalObjective()
    assert "in adapter t2, started from t1," in made.reason
    assert values(made)["adapter"] == "t2"


@pytest.mark.parametrize("tuner", ["full", "lora"])
def test_adapters_are_low_rank_whatever_the_tuner(tuner: str) -> None:
    made = plan(signals({"tuner": tuner, "lora": {"r": 4}}, **CLASSES), name="mos")
    job = train_job(made)
    assert (job.training.tuner, job.schedule.lr, adapter_selection(job).lora.r) == ("lora", 2e-4, 4)
    assert made.values["tuner"].value == "lora"


@pytest.mark.parametrize("task", ["causal-lm", "sft"])
def test_language_models_train_on_their_own_objective(task: Task) -> None:
    job = train_job(plan(signals(task=task), name="mos"))
    assert job.objective.kind == task
    assert job.selection.kind == "adapter"


@pytest.mark.parametrize("task", ["causal-lm", "sft"])
def test_a_domain_too_small_for_a_router_waits_for_more(task: Task) -> None:
    with pytest.raises(BadPlan, match=r"3 new rows cannot be told .* needs 4 at least; wait for more data"):
        plan(signals(task=task, new=(source("batch-3", 3),)), name="mos")
    assert plan(signals(task=task, new=(source("batch-3", 4),)), name="mos").jobs


def test_a_refused_stage_is_tried_again_at_half_its_rate_under_the_same_name() -> None:
    first = plan(signals(**CLASSES), name="mos")
    again = plan(signals(**CLASSES, refused=(values(first),)), name="mos")
    assert train_job(again).schedule.lr == train_job(first).schedule.lr / 2
    assert train_job(again).selection == train_job(first).selection


@pytest.mark.parametrize("name", ["naive", "rewarm-replay", "half-finetune"])
def test_no_other_strategy_goes_on_from_a_bank(name: str) -> None:
    with pytest.raises(BadPlan, match="choose strategy mos, or retrain"):
        plan(signals(parent_answer=BANK), name=name)


def test_auto_goes_on_from_a_bank_with_mos() -> None:
    given = signals(**later({"adapter": "t1"}))
    made = plan(given, name="auto")
    assert made.jobs == plan(given, name="mos").jobs
    assert made.reason.startswith("mos, because the live version is a bank of adapters")
    assert {one["strategy"] for one in choice.alternatives(given, StrategySettings())} >= {"rewarm-replay", "retrain"}


def test_retrain_leaves_a_bank_behind_for_the_base() -> None:
    assert train_job(plan(signals(parent_answer=BANK), name="retrain")).init == "@base/answer/model"


@pytest.mark.parametrize(
    ("parent", "reason"),
    [
        ({"parent_answer": ("answer/adapter", "answer/model")}, "cannot start on a model with an adapter"),
        ({**CLASSES, "parent_labels": ("a", "b")}, "tells a, b apart by a head of its own"),
        ({**CLASSES, "parent_labels": tuple("abcdefgh")}, "a, b, c, d, e and 3 more classes"),
    ],
)
def test_a_bank_does_not_start_where_something_would_be_lost(parent: Json, reason: str) -> None:
    with pytest.raises(BadPlan, match=reason):
        plan(signals(**parent), name="mos")
