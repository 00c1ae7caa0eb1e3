"""The merge that a stage may end with: which models are trained for it, and what it takes of them."""

from __future__ import annotations

from typing import Any

import pytest

from strategies.contract import TrainTemplate
from strategies.contract.graph import order
from strategies.errors import BadPlan
from strategies.named import NAMED
from strategies.settings import Json
from strategies.settings.consolidation import EmaConsolidation
from tests.strategies.makers import merge_job, plan, signals, source, train_job


def ending_with(method: str | Json, **more: Any) -> dict[str, Any]:
    return {"consolidation": {"kind": "merge", "method": method, **more}}


def test_siblings_differ_in_the_order_of_their_rows_alone() -> None:
    made = plan(**ending_with("soup"))
    trained = [job for job in made.jobs.values() if isinstance(job, TrainTemplate)]
    assert list(merge_job(made).members) == ["train-1", "train-2", "train-3"]
    assert len({job.mixing.order for job in trained}) == 3
    alike = [job.model_copy(update={"mixing": trained[0].mixing, "state": ()}) for job in trained]
    assert alike[0] == alike[1] == alike[2]
    assert [bool(job.state) for job in trained] == [True, False, False]
    assert order(made)[-1] == "merge"
    assert made.values["siblings"].value == 3
    assert "merges 3 siblings by soup" in made.reason


def test_one_sibling_alone_is_averaged_with_what_it_started_from() -> None:
    made = plan(**ending_with("fisher", siblings=1))
    assert merge_job(made).members == {"train-1": "@train-1/answer/model", "start": "@live/answer/model"}
    assert merge_job(made).rows == {"train-1": "batch-3", "start": "batch-2"}
    with pytest.raises(BadPlan, match="no earlier batch"):
        plan(signals(anchor=None, old=()), "naive", **ending_with("fisher", siblings=1))


@pytest.mark.parametrize("method", ["soup", "greedy-soup", "fisher"])
def test_a_start_that_knows_no_classes_is_averaged_with_nothing(method: str) -> None:
    pools: Json = {"task": "classification", "labels": ("a", "b"), "pools": ("pool",)}
    starts: tuple[Json, ...] = ({}, {"parent_labels": ("a",), "name": "retrain"})
    for more in starts:
        name = more.pop("name", "naive")
        with pytest.raises(BadPlan, match="knows no classes yet; set siblings to 2"):
            plan(signals(**pools, **more), name, **ending_with(method, siblings=1))
    grown = plan(signals(**pools, parent_labels=("a",)), "naive", **ending_with(method, siblings=1))
    assert list(merge_job(grown).members) == ["train-1", "start"]


@pytest.mark.parametrize(
    ("method", "siblings"),
    [
        ("interpolate", 1),
        ({"kind": "lines", "alpha": 0.5}, 1),
        ({"kind": "lines", "beta": 0.5, "after": {"kind": "interpolate"}}, 1),
        ({"kind": "lines", "beta": 0.5, "after": {"kind": "half-reset"}}, 1),
        ("ties", 3),
        ("pcb", 3),
    ],
)
def test_what_scales_one_change_trains_one_model(method: str | Json, siblings: int) -> None:
    made = plan(**ending_with(method))
    assert len(merge_job(made).members) == siblings


def test_lines_after_a_merge_takes_siblings() -> None:
    lines = {"kind": "lines", "beta": 0.5, "after": {"kind": "task-arithmetic", "lam": 0.4}}
    assert len(merge_job(plan(**ending_with(lines, siblings=2))).members) == 2


def test_a_greedy_soup_chooses_by_the_sets_of_all_that_it_was_trained_on() -> None:
    new = source("batch-3").model_copy(update={"eval_set": "batch-3-heldout"})
    old = source("batch-1").model_copy(update={"eval_set": "batch-1-heldout"})
    made = plan(signals(new=(new,), old=(old,), pools=("pool",)), **ending_with("greedy-soup"))
    assert set(merge_job(made).sets) == {"batch-3-heldout", "batch-1-heldout", "pool"}
    with pytest.raises(BadPlan, match="choose soup"):
        plan(**ending_with("greedy-soup"))


@pytest.mark.parametrize(
    ("method", "siblings", "into"),
    [
        ("soup", 2, "adapter"),
        ("ties", 2, "adapter"),
        ("pcb", 2, "adapter"),
        ("soup", 1, "model"),
        ("fisher", 2, "model"),
    ],
)
def test_adapters_stay_adapters_where_the_method_can(method: str, siblings: int, into: str) -> None:
    made = plan(signals({"tuner": "lora"}), **ending_with(method, siblings=siblings))
    assert merge_job(made).into == into
    assert merge_job(made).members["train-1"] == "@train-1/answer/adapter"


def test_retraining_counts_changes_from_the_base() -> None:
    assert merge_job(plan(name="retrain", **ending_with("task-arithmetic"))).init == "@base/answer/model"


@pytest.mark.parametrize("name", [one.name for one in NAMED if one.composition.selection.kind != "adapter"])
def test_any_strategy_may_end_with_a_merge(name: str) -> None:
    assert len(merge_job(plan(name=name, **ending_with("soup", siblings=2))).members) == 2


@pytest.mark.parametrize("tuner", ["full", "lora"])
def test_of_the_infinite_schedule_the_release_alone_is_merged(tuner: str) -> None:
    role = {"full": "answer/model", "lora": "answer/adapter"}[tuner]
    plain = plan(signals({"tuner": tuner}), schedule="infinite")
    made = plan(signals({"tuner": tuner}), schedule="infinite", **ending_with("soup", siblings=2))
    assert list(made.jobs) == ["trunk", "release-1", "release-2", "merge"]
    assert (made.jobs["trunk"], made.jobs["release-1"]) == (plain.jobs["trunk"], plain.jobs["release"])
    assert merge_job(made).init == f"@trunk/{role}"
    assert set(merge_job(made).members.values()) == {f"@release-1/{role}", f"@release-2/{role}"}
    one = plan(signals({"tuner": tuner}), schedule="infinite", **ending_with("soup", siblings=1))
    assert merge_job(one).members["start"] == f"@trunk/{role}"
    assert made.reason.endswith(", then merges 2 siblings by soup.")


def test_of_the_infinite_schedule_the_release_alone_is_averaged() -> None:
    plain = plan(schedule="infinite")
    made = plan(schedule="infinite", consolidation="ema")
    assert made.jobs["trunk"] == plain.jobs["trunk"]
    average = train_job(made, "release").consolidation
    assert average == EmaConsolidation(decay=1 - 1 / made.values["anneal_steps"].value)
    assert made.values["decay"].origin == f"horizon of 1 stage of {made.values['anneal_steps'].value} steps"


def test_a_decay_of_none_of_the_average_is_the_users() -> None:
    decay = plan(consolidation={"kind": "ema", "decay": 0.0}).values["decay"]
    assert (decay.value, decay.origin) == (0.0, "settings")


def test_a_search_for_the_mixture_comes_before_every_sibling() -> None:
    first = (source("batch-1", 800, tokens=50_000),)
    given = signals(new=(source("batch-3", tokens=50_000),), old=first)
    doremi = {"reweight": {"kind": "doremi"}}
    made = plan(given, "data-mixing", mixing=doremi, **ending_with("soup", siblings=2))
    assert list(made.jobs) == ["reference", "proxy", "train-1", "train-2", "merge"]


def test_what_searches_the_mixture_is_trained_weights_and_no_average() -> None:
    first = (source("batch-1", 800, tokens=50_000),)
    given = signals(new=(source("batch-3", tokens=50_000),), old=first)
    made = plan(given, "data-mixing", mixing={"reweight": {"kind": "doremi"}}, consolidation="ema")
    kinds = {name: job.consolidation.kind for name, job in made.jobs.items() if isinstance(job, TrainTemplate)}
    assert kinds == {"reference": "keep", "proxy": "keep", "train": "ema"}


def test_lines_after_fisher_brings_what_fisher_needs() -> None:
    lines = {"kind": "lines", "beta": 0.5, "after": {"kind": "fisher"}}
    made = merge_job(plan(signals({"tuner": "lora"}), **ending_with(lines, siblings=2)))
    assert (made.into, made.rows) == ("model", {"train-1": "batch-3", "train-2": "batch-3"})
