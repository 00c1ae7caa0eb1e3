"""Why not: each reason against a candidate is true beside what was chosen, whatever the user set."""

from __future__ import annotations

from typing import Any

import pytest

from strategies.chooser import choice
from strategies.chooser.candidates import HALF_REPLAY, INFINITE, NEW_BANK, candidates
from strategies.chooser.choice import StrategySettings
from strategies.chooser.evidence import in_words
from strategies.contract import ClassFacts, Signals
from strategies.contract.circumstances import Circumstances, Forgotten
from strategies.settings import Json
from tests.strategies.makers import plan, signals, source
from tests.strategies.test_rules import decisions, forgotten

CLASSES: Json = {
    "task": "classification",
    "labels": ("a", "b", "c"),
    "taught_labels": ("a", "b", "c"),
    "parent_labels": ("a", "b"),
}
ALONE: Json = {"old": (), "anchor": None}


def turned_down(given: Signals, **settings: Any) -> dict[str, str]:
    asked = StrategySettings.model_validate({"name": "auto", **settings})
    return {one["strategy"]: one["reason"] for one in choice.alternatives(given, asked)}


def chosen(given: Signals, **settings: Any) -> str:
    return str(plan(given, name="auto", **settings).values["choice"].value)


# --- what the user set -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "settings", "label", "said"),
    [
        ("causal-lm", {"mixing": {"share": 0.5}}, INFINITE, "strategy.mixing.share is set to 0.5"),
        ("sft", {"mixing": {"share": 0.5}}, "rewarm-replay/half", "strategy.mixing.share is set to 0.5"),
        ("sft", {"mixing": "new"}, "naive", "strategy.mixing is set to new, whatever is measured"),
        ("sft", {"mixing": "new", "selection": "half"}, "half-finetune", "strategy.selection is set to half"),
        ("causal-lm", {"mixing": "new", "schedule": "cosine"}, "naive", "strategy.mixing is set to new"),
        ("causal-lm", {"selection": "half"}, HALF_REPLAY, "strategy.selection is set to half"),
        ("sft", {"schedule": "infinite"}, INFINITE, "strategy.schedule is set to infinite"),
        ("causal-lm", {"schedule": "cosine"}, "rewarm-replay", "the anchor must not be forgotten"),
        ("sft", {"mixing": "everything", "start": "base"}, "retrain", "strategy.start is set to base"),
    ],
)
def test_the_label_and_the_reason_are_of_what_the_users_screws_make(
    task: str, settings: Json, label: str, said: str
) -> None:
    made = plan(signals(task=task), name="auto", **settings)
    assert made.values["choice"].value == label
    assert made.reason.startswith(f"{label}, because ")
    assert said in made.reason
    assert all(made.values[screw].origin == "settings" for screw in settings)
    assert "trunk that never decays" not in made.reason or made.values["schedule"].value == "infinite"


def test_a_screw_that_auto_chose_says_so() -> None:
    values = plan(signals(), name="auto", mixing={"share": 0.5}).values
    assert {screw: values[screw].origin for screw in ("mixing", "schedule")} == {
        "mixing": "settings", "schedule": "auto: rewarm-replay/infinite",
    }  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"mixing": "new"},
        {"mixing": {"share": 0.5}},
        {"mixing": "weighted"},
        {"selection": "half"},
        {"schedule": "infinite"},
        {"schedule": "cosine"},
    ],
)
def test_what_is_the_same_as_the_choice_is_not_turned_down(settings: Json) -> None:
    given = signals()
    asked = StrategySettings.model_validate({"name": "auto", **settings})
    screws = choice.turned(asked)
    composition = {label: one.composition(screws) for label, one in candidates().items()}
    made = composition[chosen(given, **settings)]
    assert set(turned_down(given, **settings)) == {label for label, one in composition.items() if one != made}


def test_a_share_that_is_set_is_what_is_asked_for() -> None:
    against = turned_down(signals(), mixing={"share": 0.3})
    assert against["naive"] == against["data-mixing"] == against["mos"] == "strategy.mixing is set to replay"
    assert against["rewarm-replay/half"] == "strategy.mixing.share is set to 0.3"
    half = turned_down(signals(), mixing={"share": 0.5})
    assert half["rewarm-replay/half"].startswith("50% of replay is asked for already; it would warm the rate up anew")
    assert not any("5% is asked for" in one.replace("25%", "").replace("50%", "") for one in half.values())


def test_nothing_is_said_of_replay_where_the_settings_leave_none() -> None:
    against = turned_down(signals(), mixing="new")
    assert against["naive"].startswith("it would warm the rate up anew in every stage")
    assert against["rewarm-replay"] == against["retrain"] == "strategy.mixing is set to new"
    assert not any("without replay" in one for one in against.values())


def test_what_the_users_screws_do_not_go_with_says_so() -> None:
    assert turned_down(signals(), selection="half")[INFINITE].endswith("; strategy.selection is set to half")
    assert turned_down(signals(), schedule="infinite")["retrain"].endswith("; strategy.schedule is set to infinite")
    same = turned_down(signals(task="sft"), mixing="everything")["retrain"]
    assert same == "it would train the base on the same rows, without what the live version knows"
    trunk = turned_down(signals(), mixing="weighted")["data-mixing"]
    assert trunk.startswith("it would warm the rate up anew")


# --- what was measured -------------------------------------------------------------------------------------------


def test_beside_a_trunk_re_warming_is_what_stands_against_replay() -> None:
    assert turned_down(signals())["rewarm-replay"].startswith(
        "it would warm the rate up anew in every stage: on texts a trunk ended at a lower average loss"
    )


def test_before_anything_else_came_no_reason_speaks_of_what_came_before() -> None:
    given = signals(
        **{**CLASSES, "parent_labels": ()},
        **ALONE,
        new=(source("batch-1", 108),),
        circumstances=Circumstances(new_labels=("a", "b", "c")),
    )
    against = turned_down(given)
    assert against.pop("mos") == "no class is known yet that new ones must be kept apart from" == against.pop(NEW_BANK)
    assert against.pop("retrain") == "there is no earlier batch that it would train on again"
    assert set(against) == {
        "rewarm-replay", "half-finetune", HALF_REPLAY, "rewarm-replay/half", INFINITE, "data-mixing",
    }  # fmt: skip
    assert all(one.startswith("there is nothing earlier ") for one in against.values())


def test_a_classifier_is_not_told_the_losses_of_language_models() -> None:
    given = signals(**CLASSES, circumstances=Circumstances(new_labels=("c",), known_labels=("a", "b")))
    against = turned_down(given)
    assert against["rewarm-replay/half"] == (
        "half of each step would be old rows where 5% is asked for, and less of the new would be learnt"
    )
    wanted = "it is asked for where at least half of the classes in the new batches are new, here 1 of 3"
    assert against["mos"] == against[NEW_BANK] == wanted


def test_beside_a_bank_that_begins_at_the_base_one_cannot_go_on_from_a_head() -> None:
    given = signals(**CLASSES, circumstances=Circumstances(new_labels=("c",), known_labels=("a",)))
    assert chosen(given) == NEW_BANK
    assert turned_down(given)["mos"].startswith("no bank takes over the classes of the live version's head")


@pytest.mark.parametrize(
    ("rows", "loss", "said"),
    [
        (3000, 6.0, "only 9% of its rows would be old where 25% is asked for"),
        (900, 3.0, "it would train the base on 1200 rows instead of 900; at most 1.25 times as many are worth it"),
    ],
)
def test_a_retrain_is_turned_down_for_what_it_is_short_of(rows: int, loss: float, said: str) -> None:
    given = signals(
        task="sft",
        new=(source("batch-3", rows, loss=loss),),
        old=(source("batch-1", 100),),
        anchor=source("anchor", 200),
    )
    assert turned_down(given)["retrain"] == said


def worst(rise: float, **changes: Any) -> Circumstances:
    one: Json = {"eval_set": "batch-17", "metric": "accuracy", "versions": 1, "best": 0.5, "now": 0.5 - rise}
    return Circumstances(forgotten=(Forgotten.model_validate({**one, "rise": rise, "tolerance": 0.02, **changes}),))


def test_what_stands_against_half_is_what_was_measured_of_the_sets() -> None:
    better = turned_down(signals(task="sft", circumstances=worst(-0.167)))[HALF_REPLAY]
    assert better.startswith("nothing was forgotten (batch-17 is 16.7 points better than at best before), and half")
    assert "replay" not in better
    little = signals(task="sft", parent_settings={"replay": 0.05}, circumstances=worst(0.015))
    assert turned_down(little)[HALF_REPLAY].endswith(
        "is 1.5 points worse than at best (2.0 points allowed) after 5% of replay;"
        " half of the matrices are frozen once 25% was not enough"
    )
    texts = signals(parent_settings={"replay": 0.25}, circumstances=forgotten(0.04))
    assert chosen(texts) == INFINITE
    assert (
        "after 25% of replay, but on texts a trunk forgot less than replay with half" in turned_down(texts)[HALF_REPLAY]
    )


# --- in words ----------------------------------------------------------------------------------------------------


def test_forgetting_is_said_as_worse_or_better() -> None:
    shown = {rise: in_words(signals(circumstances=worst(rise)))["forgetting"] for rise in (-0.167, 0.015)}
    assert shown[-0.167] == (
        "batch-17 16.7 points better (now 0.667, before at best 0.5, 1 version measured, 2.0 points allowed)"
    )
    assert shown[0.015].startswith("batch-17 1.5 points worse (now 0.485, ")
    assert in_words(signals(circumstances=forgotten(0.04)))["forgetting"].startswith("anchor 4.0% worse (now 2.08, ")


def test_earlier_decisions_are_shown_by_label_and_rollbacks_with_their_reason() -> None:
    around = decisions("promoted", "rolled back", "refused")
    named = [one.model_copy(update={"choice": INFINITE}) if one.decision == 1 else one for one in around.decisions]
    shown = in_words(signals(circumstances=around.model_copy(update={"decisions": tuple(named)})))
    assert shown["earlier decisions"] == (
        "1 rewarm-replay/infinite with 5% replay promoted; 2 rewarm-replay with 5% replay rolled back (why 2);"
        " 3 rewarm-replay with 5% replay refused for forgetting"
    )


def test_a_domain_that_no_earlier_batch_had_is_new_beside_what_is_far() -> None:
    named = [
        source(name, loss=loss).model_copy(
            update={"classes": tuple(ClassFacts(name=one, documents=9, tokens=9, rows=9) for one in classes)}
        )
        for name, loss, classes in (("batch-4", 3.6, ("law", "code")), ("batch-2", 3.0, ("code",)))
    ]
    shown = in_words(signals(new=(named[0],), old=(named[1],)))
    assert shown["new domains"] == "batch-4 (by its loss), law"
    assert in_words(signals())["new domains"] == "none"


def test_amounts_of_one_are_in_the_singular() -> None:
    shown = in_words(signals(new=(source("batch-3", 1, tokens=1),)))
    assert shown["new data"] == "1 document, 1 token, 1 row in 1 source"
