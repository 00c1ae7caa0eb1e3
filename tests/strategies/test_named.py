"""Named strategies: signals in, plan out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from strategies.chooser import choice
from strategies.chooser.choice import StrategySettings
from strategies.errors import BadPlan
from strategies.settings import Json, Task
from tests.strategies.makers import (
    cosine_schedule,
    ema_consolidation,
    half_selection,
    plan,
    replay_mixing,
    signals,
    source,
    train_job,
    values,
)

ROOT = Path(__file__).parents[2]


PLANS = """
from strategies.chooser import choice
from tests.strategies.makers import plan

for name in choice.NAMES:
    print(plan(name=name).model_dump_json())
"""


@pytest.mark.parametrize("seed", ["1", "2"])
def test_the_same_signals_make_the_same_plan_in_every_process(seed: str) -> None:
    env = {**os.environ, "PYTHONHASHSEED": seed}
    found = subprocess.check_output([sys.executable, "-c", PLANS], env=env, cwd=ROOT, text=True)
    assert found.splitlines() == [plan(name=name).model_dump_json() for name in choice.NAMES]


@pytest.mark.parametrize("name", choice.NAMES)
def test_every_resolved_value_says_where_it_comes_from(name: str) -> None:
    made = plan(name=name)
    assert made.reason.endswith(".")
    assert all(one.origin for one in made.values.values())
    assert {"strategy", "learning_rate", "steps", "batch", "order"} <= set(made.values)


def test_a_setting_that_is_taken_as_it_stands_is_named() -> None:
    values = plan(signals({"tuner": "lora", "train_batch_size": 8})).values
    assert (values["tuner"].value, values["tuner"].origin) == ("lora", "training.tuner")
    assert (values["batch"].value, values["batch"].origin) == (8, "training.train_batch_size")


@pytest.mark.parametrize("name", choice.NAMES)
@pytest.mark.parametrize("refusals", [1, 2, 3, 5])
def test_a_plan_differs_from_every_refused_one(name: str, refusals: int) -> None:
    refused: list[Json] = []
    for _ in range(refusals):
        refused.append(values(plan(signals(refused=tuple(refused)), name=name)))
    settings = [tuple(one.get(key) for key in ("strategy", "replay", "learning_rate")) for one in refused]
    assert len(set(settings)) == refusals


def test_strategies_are_described_for_the_user() -> None:
    described = {one["name"]: one for one in choice.describe()}
    assert list(described) == ["auto", "naive", "retrain", "rewarm-replay", "half-finetune", "data-mixing", "mos"]
    assert described["rewarm-replay"]["composition"]["mixing"] == {"kind": "replay", "share": None}


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(BadPlan, match="choose one of auto"):
        choice.get("magic")


def test_without_rows_there_is_no_plan() -> None:
    with pytest.raises(BadPlan, match="no rows"):
        plan(signals(new=(source("batch-3", 0),)))


# --- naive and retrain -------------------------------------------------------------------------------------------


def test_naive_trains_the_live_model_on_the_new_data_alone() -> None:
    job = train_job(plan(name="naive"))
    assert (job.init, job.optimizer, job.mixing.cursor) == ("@live/answer/model", None, None)
    assert (replay_mixing(job).new, replay_mixing(job).old, replay_mixing(job).share) == (("batch-3",), {}, "0.0")
    assert (job.steps, cosine_schedule(job).steps, cosine_schedule(job).warmup) == (100, 100, 10)


def test_naive_halves_its_rate_after_a_refusal() -> None:
    made = plan(signals(refused=({"strategy": "naive", "learning_rate": 3e-4},)), name="naive")
    assert train_job(made).schedule.lr == 1.5e-4
    assert made.values["learning_rate"].origin.startswith("halved after refusal")


def test_refusals_of_another_strategy_change_nothing() -> None:
    made = plan(signals(refused=({"strategy": "retrain", "learning_rate": 3e-4},)), name="naive")
    assert train_job(made).schedule.lr == 3e-4


def test_retrain_trains_the_base_on_everything_jointly() -> None:
    job = train_job(plan(name="retrain"))
    assert job.init == "@base/answer/model"
    assert replay_mixing(job).new == ("anchor", "batch-1", "batch-2", "batch-3")
    assert replay_mixing(job).old == {}
    assert job.steps == (500 + 800 + 400 + 1600 + 15) // 16


# --- half fine-tuning --------------------------------------------------------------------------------------------


def test_half_finetune_freezes_a_fresh_half_each_stage_by_value() -> None:
    first, second = (train_job(plan(signals(stage=stage), name="half-finetune")) for stage in (1, 2))
    assert first.selection.kind == "half"
    assert half_selection(first).frozen != half_selection(second).frozen
    assert train_job(plan(signals(stage=1), name="half-finetune")) == first
    assert (first.optimizer, replay_mixing(first).old) == (None, {})


def test_half_and_replay_go_together() -> None:
    made = plan(name="half-finetune", mixing={"kind": "replay", "share": 0.25})
    assert (replay_mixing(train_job(made)).share, train_job(made).selection.kind) == ("0.25", "half")
    assert made.reason.endswith("of the blocks stays as it is (category level).")
    assert 0.4 < made.values["trainable_share"].value < 0.6
    assert 0.5 < made.values["new_bytes_bound"].value <= 1


def test_no_bound_of_new_bytes_is_promised_where_halves_are_merged() -> None:
    made = plan(name="half-finetune", consolidation="merge")
    assert "new_bytes_bound" not in made.values
    assert made.values["trainable_share"].value < 1


def test_half_of_an_adapter_names_the_adapters_that_stay() -> None:
    made = plan(signals({"tuner": "lora"}), name="half-finetune")
    assert train_job(made).selection.lora is not None


def test_half_needs_the_models_parameters() -> None:
    with pytest.raises(BadPlan, match="were not measured"):
        plan(signals(parameters=()), name="half-finetune")


# --- auto --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({}, "rewarm-replay/infinite"),
        ({"anchor": None}, "rewarm-replay/infinite"),
        ({"old": ()}, "rewarm-replay/infinite"),
        ({"old": (), "anchor": None}, "naive"),
        ({"old": (), "anchor": source("anchor", 0)}, "naive"),
    ],
)
def test_auto_replays_when_there_is_anything_to_protect(changes: Json, chosen: str) -> None:
    made = plan(signals(**changes), name="auto")
    assert made.strategy == made.values["strategy"].value == chosen.removesuffix("/infinite")
    assert made.values["choice"].value == chosen
    assert made.reason.startswith(f"{chosen}, because ")


def test_auto_plans_what_the_chosen_strategy_plans() -> None:
    assert plan(name="auto").jobs == plan(name="rewarm-replay", schedule={"kind": "infinite"}).jobs
    others = signals(task="sft")
    assert plan(others, name="auto").jobs == plan(others, name="rewarm-replay").jobs


def test_what_the_user_turned_holds_whatever_auto_chooses() -> None:
    made = plan(signals(old=(), anchor=None), name="auto", schedule={"kind": "infinite"})
    assert (made.strategy, tuple(made.jobs)) == ("naive", ("trunk", "release"))


BY_NAME = ("data-mixing", "mos", "mos/base")
REPLAYED = ("rewarm-replay", "half-finetune", "half-finetune/replay", "rewarm-replay/half")


def test_auto_says_what_it_turned_down_and_why() -> None:
    turned_down = choice.alternatives(signals(), StrategySettings())
    assert [one["strategy"] for one in turned_down] == ["naive", *REPLAYED, *BY_NAME, "retrain"]
    assert "3300 rows instead of 1600" in turned_down[-1]["reason"]
    assert choice.alternatives(signals(), StrategySettings(name="naive")) == []


# --- steps, warm-up, rate ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("training", "steps"),
    [
        ({}, 100),
        ({"train_batch_size": 7}, 229),
        ({"num_train_epochs": 2.5}, 250),
        ({"num_train_epochs": 0.001}, 1),
        ({"max_steps": 7}, 7),
    ],
)
def test_steps_are_passes_over_the_new_rows(training: Json, steps: int) -> None:
    assert train_job(plan(signals(training))).steps == steps


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5])
def test_steps_do_not_depend_on_the_share_of_replay(share: float) -> None:
    assert train_job(plan(mixing={"share": share})).steps == 100


@pytest.mark.parametrize(
    ("steps", "asked", "warmup"),
    [
        (5000, None, 50), (1000, None, 10), (999, None, 30), (400, None, 12), (100, None, 10), (12, None, 6),
        (1, None, 0), (100, 0.2, 20), (100, 70, 70), (100, 700, 100), (100, 0, 0),
    ],
)  # fmt: skip
def test_warmup_is_one_percent_at_least_ten_steps_at_most_half(steps: int, asked: float | None, warmup: int) -> None:
    made = plan(signals({"max_steps": steps, "warmup_steps": asked}))
    assert train_job(made).schedule.warmup == warmup


@pytest.mark.parametrize(
    ("task", "training", "rate"),
    [
        ("causal-lm", {}, 3e-4), ("sft", {}, 5e-5), ("classification", {}, 5e-5), ("sft", {"tuner": "lora"}, 2e-4),
        ("causal-lm", {"tuner": "lora"}, 2e-4), ("sft", {"learning_rate": 1e-3}, 1e-3),
    ],
)  # fmt: skip
def test_the_peak_rate_follows_task_and_tuner(task: Task, training: Json, rate: float) -> None:
    job = train_job(plan(signals(training, task=task)))
    assert job.schedule.lr == rate
    assert job.schedule.min_lr == pytest.approx(rate / 10)
    assert job.selection.kind == training.get("tuner", "full")


def test_the_order_of_rows_changes_from_stage_to_stage() -> None:
    orders = {train_job(plan(signals(stage=stage))).mixing.order for stage in (1, 2, 3)}
    assert len(orders) == 3


# --- consolidation -----------------------------------------------------------------------------------------------


def test_an_average_stands_in_the_plan_with_its_decay_by_value() -> None:
    made = plan(name="naive", consolidation={"kind": "ema", "horizon": 2})
    assert made.values["consolidation"].value == "ema"
    assert made.values["decay"].value == pytest.approx(1 - 1 / 200)
    assert ema_consolidation(train_job(made)).decay == made.values["decay"].value
    assert made.reason.endswith("averaged over its steps.")


def test_a_stage_of_one_step_averages_nothing_and_is_still_a_plan() -> None:
    made = plan(signals({"max_steps": 1}), name="naive", consolidation="ema")
    assert ema_consolidation(train_job(type(made).model_validate_json(made.model_dump_json()))).decay == 0


def test_without_an_average_the_trained_weights_are_the_result() -> None:
    made = plan()
    assert train_job(made).consolidation.kind == "keep"
    assert "decay" not in made.values
