"""Screws that contradict each other are refused with the reason; a screw without a kind is the strategy's own."""

import itertools

import pytest
from pydantic import ValidationError

from strategies.chooser import choice
from strategies.chooser.choice import StrategySettings
from strategies.errors import BadPlan
from strategies.settings import Json, Task, TrainingSettings
from tests.strategies.makers import plan, signals

INFINITE = {"kind": "infinite"}
HALF = {"kind": "half"}
BANK = {"selection": {"kind": "adapter"}, "consolidation": {"kind": "task-mean"}, "mixing": {"kind": "new"}}


@pytest.mark.parametrize(
    ("given", "training", "reason"),
    [
        ({"schedule": INFINITE, "keep_optimizer": True}, {}, "remove keep_optimizer"),
        ({"schedule": INFINITE}, {"min_learning_rate_ratio": 0}, "cannot reach 0"),
        ({"schedule": INFINITE}, {"min_learning_rate_ratio": 0.9}, "constant_ratio is below"),
        ({"schedule": INFINITE, "selection": HALF}, {}, "half needs a new one"),
        ({"schedule": INFINITE, "mixing": {"kind": "everything"}}, {}, "has seen the old rows"),
        ({"selection": HALF, "keep_optimizer": True}, {}, "remove keep_optimizer"),
        ({"consolidation": {"kind": "ema"}, "keep_optimizer": True}, {}, "not to an average"),
        ({"consolidation": {"kind": "merge"}, "keep_optimizer": True}, {}, "not to a merge"),
        (
            {"start": "base", "mixing": {"kind": "everything"}, "schedule": {"warmup_start": "last_lr"}},
            {},
            "which the base never had",
        ),
        ({**BANK, "consolidation": {"kind": "merge"}}, {}, "set consolidation.kind to task-mean"),
        ({"start": "base"}, {}, "would be lost"),
        ({"start": "base", "mixing": {"kind": "weighted"}}, {}, "set mixing.weights to prior"),
        ({"selection": {"kind": "adapter"}}, {}, "set consolidation.kind to task-mean"),
        ({"consolidation": {"kind": "task-mean"}}, {}, "task-mean is for adapters"),
        ({"objective": {"kind": "local"}}, {}, "local is for adapters"),
        ({**BANK, "mixing": {"kind": "replay"}}, {}, "set mixing.kind to new"),
        ({**BANK, "schedule": INFINITE}, {}, "every adapter is a new one; choose cosine"),
        ({**BANK, "keep_optimizer": True}, {}, "has no moments"),
        (
            {**BANK, "consolidation": {"kind": "task-mean", "space": "delta", "merge_every": "step"}},
            {},
            "reset the opt",
        ),
        ({"start": "base", "mixing": {"kind": "everything"}, "schedule": INFINITE}, {}, "set start to live"),
        ({"start": "base", "mixing": {"kind": "everything"}, "keep_optimizer": True}, {}, "no optimizer moments"),
    ],
)
def test_contradictions_are_refused(given: Json, training: Json, reason: str) -> None:
    with pytest.raises(BadPlan, match=reason):
        plan(signals(training), **given)
    with pytest.raises(BadPlan, match=reason):
        choice.check(StrategySettings.model_validate(given), TrainingSettings(**training), "causal-lm")


ADAPTERS = {"name": "mos"}


@pytest.mark.parametrize(
    ("task", "given", "reason"),
    [
        ("classification", {"mixing": {"kind": "weighted", "reweight": {"kind": "doremi"}}}, "choose skill-it"),
        ("classification", {"mixing": {"kind": "weighted", "reweight": {"kind": "regmix"}}}, "choose skill-it"),
        ("classification", {**ADAPTERS, "consolidation": {"router": {"prior": "cosine"}}}, "without router.prior"),
        ("causal-lm", {**ADAPTERS, "objective": {"orthogonality": 0.2}}, "objective.orthogonality is about classes"),
        ("sft", {**ADAPTERS, "consolidation": {"align": {"epochs": 3}}}, "consolidation.align is about classes"),
        ("sft", {**ADAPTERS, "selection": {"pooling": "cls"}}, "selection.pooling is about classes, which sft"),
    ],
)
def test_what_the_task_would_not_heed_is_refused_before_anything_is_measured(
    task: Task, given: Json, reason: str
) -> None:
    with pytest.raises(BadPlan, match=reason):
        choice.check(StrategySettings.model_validate(given), TrainingSettings(), task)
    other: Task = "causal-lm" if task == "classification" else "classification"
    choice.check(StrategySettings.model_validate(given), TrainingSettings(), other)


@pytest.mark.parametrize("task", ["causal-lm", "sft", "classification"])
@pytest.mark.parametrize("name", choice.NAMES)
def test_every_strategy_fits_every_task(name: str, task: Task) -> None:
    choice.check(StrategySettings.model_validate({"name": name}), TrainingSettings(), task)


@pytest.mark.parametrize(
    ("screw", "reason"),
    [
        ({"mixing": {"kind": "replay", "warmup_start": "zero"}}, "Extra inputs"),
        ({"schedule": {"kind": "cosine", "anneal": 0.1}}, "Extra inputs"),
        ({"schedule": {"kind": "infinite", "cooldown": 0.9, "anneal": 0.2}}, "cannot exceed 1"),
        ({"mixing": {"kind": "magic"}}, "does not match any of the expected tags"),
        ({"consolidation": {"kind": "merge", "method": "half-reset"}}, "does not match any of the expected tags"),
        ({"consolidation": {"kind": "merge", "method": "interpolate", "siblings": 2}}, "set siblings to 1"),
        ({"consolidation": {"kind": "merge", "siblings": 9}}, "less than or equal to 8"),
    ],
)
def test_a_screw_refuses_what_its_kind_does_not_use(screw: Json, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        StrategySettings.model_validate(screw)


def test_a_word_is_a_screws_kind() -> None:
    assert plan(schedule="infinite") == plan(schedule=INFINITE)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"name": "rewarm-replay", "mixing": {"share": 0.1}}, "replay"),
        ({"mixing": {"share": 0.1}}, "replay"),
        ({"name": "naive", "mixing": {}}, "new"),
        ({"name": "retrain", "mixing": {}}, "everything"),
    ],
)
def test_a_screw_without_a_kind_is_the_one_that_the_strategy_has(given: Json, kind: str) -> None:
    mixing = StrategySettings.model_validate(given).mixing
    assert mixing is not None
    assert mixing.kind == kind


@pytest.mark.parametrize(
    ("name", "mixing", "schedule"),
    list(itertools.product(choice.NAMES, ("new", "replay", "everything"), ("cosine", "infinite"))),
)
def test_a_composition_is_planned_where_it_makes_sense(name: str, mixing: str, schedule: str) -> None:
    given: Json = {"mixing": {"kind": mixing}, "schedule": {"kind": schedule}}
    senseless = schedule == "infinite" and (name == "half-finetune" or mixing == "everything" or name == "retrain")
    banked = name == "mos" and (mixing, schedule) != ("new", "cosine")
    if senseless or banked or (name == "retrain" and mixing != "everything"):
        with pytest.raises(BadPlan, match="; "):
            plan(name=name, **given)
    else:
        made = plan(name=name, **given)
        assert (made.values["mixing"].value, made.values["schedule"].value) == (mixing, schedule)
