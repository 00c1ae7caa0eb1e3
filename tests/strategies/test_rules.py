"""auto's rules: what asks for which composition, and that every other one is turned down with figures."""

import json
import re
import statistics
from typing import Any

import pytest

from strategies import metrics
from strategies.chooser import against, auto, rules
from strategies.chooser.candidates import candidates
from strategies.chooser.case import new_domains
from strategies.contract import Resolved
from strategies.contract.circumstances import Circumstances, EarlierDecision, Forgotten
from strategies.planning import share
from strategies.settings import Json, Task
from tests.benchmarks.domains import ANCHOR
from tests.benchmarks.harness import RESULTS
from tests.strategies.makers import TRUNK, adapter_selection, plan, replay_mixing, signals, source, train_job

SMALL_BATCHES: Json = {
    "training": {"train_batch_size": 4},
    "new": (source("batch-5", 200),),
    "old": tuple(source(f"batch-{number}", 400, seen_rows=400) for number in (1, 2, 3)),
}
LITTLE_OLD: Json = {
    "new": (source("batch-3", 9000),),
    "old": (source("batch-1", 700),),
    "anchor": source("anchor", 200),
}


def forgotten(rise: float, metric: str = "loss") -> Circumstances:
    one = {"eval_set": "anchor", "versions": 3, "best": 2.0, "now": 2.0 * (1 + rise), "rise": rise, "tolerance": 0.05}
    return Circumstances(forgotten=(Forgotten.model_validate({**one, "metric": metric}),))


def decisions(
    *results: str, strategy: str = "rewarm-replay", replay: float = 0.05, only_forgot: bool = True
) -> Circumstances:
    made = [
        EarlierDecision.model_validate(
            {
                "decision": at,
                "strategy": strategy,
                "replay": replay,
                "result": result,
                "reason": f"why {at}",
                "only_forgot": only_forgot,
            }
        )
        for at, result in enumerate(results, start=1)
    ]
    return Circumstances(decisions=tuple(made))


@pytest.mark.parametrize(
    ("changes", "rule", "figures"),
    [
        ({"old": (), "anchor": None}, "nothing to protect", ""),
        ({"task": "sft"}, "something to protect", "the loss is 0% higher on the new data .measured: new 3, anchor 3"),
        (
            {"task": "sft", "new": (source("batch-3", loss=2.4),)},
            "something to protect",
            "the loss is 20% lower on the new data",
        ),
        (LITTLE_OLD, "retraining is cheap", "9000 new rows are 10 times all old ones.*10% more.*9% of its rows.*5%"),
        (
            {"new": (source("batch-3", 4000, loss=6.0),)},
            "a trunk of texts",
            "a stage of 250 steps of texts is released from a trunk",
        ),
        ({"new": (source("batch-3", 128),)}, "a trunk of texts", "a stage of 8 steps"),
        ({"new": (source("batch-3", 112),)}, "something to protect", "must not be forgotten and can be replayed"),
        (
            {**SMALL_BATCHES, "task": "sft"},
            "many small increments",
            "200 new rows are 12% of 1700 old ones after 3 earlier batches",
        ),
        (
            {"task": "sft", "parent_settings": {"replay": 0.25}, "circumstances": forgotten(0.04)},
            "replay is not enough",
            "anchor is 4.0% worse than at best over 3 versions, though 25% of each step was replay",
        ),
        (
            {"refused": ({"strategy": "rewarm-replay", "replay": 0.25, "only_forgot": True},)},
            "replay failed",
            "refused these batches with 25% of replay for forgetting",
        ),
        (
            {"circumstances": decisions("refused", "refused")},
            "replay failed",
            "decision 1 .* was refused for forgetting, decision 2 .* was refused for forgetting",
        ),
        (
            {"circumstances": decisions("promoted", "repaired", "failed", "rolled back")},
            "replay failed",
            r"decision 2 .rewarm-replay, 5% replay. was saved by a repair, decision 4 .* was rolled back .why 4",
        ),
            (
            {
                **SMALL_BATCHES,
                "task": "sft",
                "parent_settings": {"replay": 0.25},
                "circumstances": forgotten(0.04),
            },
            "replay is not enough",
            "anchor is 4.0% worse",
        ),
        (
            {**SMALL_BATCHES, "circumstances": decisions("refused", "refused")},
            "replay failed",
            "decision 2 .* was refused",
        ),
    ],
)  # fmt: skip
def test_what_is_measured_chooses_the_rule(changes: Json, rule: str, figures: str) -> None:
    made = plan(signals(**changes), name="auto")
    assert made.values["rule"].value == rule
    assert re.search(figures, made.reason)
    assert made.values["rule"].origin == next(one.source for one in rules.RULES if one.name == rule)


@pytest.mark.parametrize(
    "changes",
    [
        {"parent_settings": {"replay": 0.05}, "circumstances": forgotten(0.04)},
        {"parent_settings": {"replay": 0.25}, "circumstances": forgotten(0.02)},
        {"refused": ({"strategy": "rewarm-replay", "replay": 0.05, "only_forgot": True},)},
        {"refused": ({"strategy": "rewarm-replay", "replay": 0.25, "only_forgot": False},)},
        {"refused": ({"strategy": "naive", "replay": 0.0},)},
        {"circumstances": decisions("promoted", "refused")},
        {"circumstances": decisions("refused", "refused", only_forgot=False)},
        {"circumstances": decisions("rolled back", "promoted")},
        {"circumstances": decisions("repaired")},
        {"circumstances": decisions("refused", "refused", strategy="naive", replay=0.0)},
        {"circumstances": decisions("refused", "refused", "promoted")},
        {"circumstances": decisions("rolled back", "rolled back")},
        {**SMALL_BATCHES, "training": {"train_batch_size": 32}},
        {**LITTLE_OLD, "old": (), "training": {"max_steps": 100}},
        {**LITTLE_OLD, "new": (source("batch-3", 9000, loss=6.0),), "training": {"max_steps": 100}},
        {"new": (source("batch-3", 4000),)},
    ],
)
def test_without_such_a_measurement_replay_is_enough(changes: Json) -> None:
    assert plan(signals(task="sft", **changes), name="auto").values["rule"].value == "something to protect"


def test_a_retrain_that_would_overrun_its_budget_is_not_chosen() -> None:
    slow = Circumstances(tokens_per_s=1.0, max_hours=0.1)
    given = signals(**LITTLE_OLD, circumstances=slow)
    assert plan(given, name="auto").strategy == "rewarm-replay"
    against = {one["strategy"]: one["reason"] for one in auto.alternatives(given, {})}
    assert "9900 rows instead of 9000, 0.8 h of 0.1 h allowed" in against["retrain"]


def test_a_retrain_that_max_steps_cuts_short_is_not_chosen_and_its_budget_is_of_those_steps() -> None:
    slow = Circumstances(tokens_per_s=1.0, max_hours=0.1)
    given = signals(**LITTLE_OLD, training={"max_steps": 50, "train_batch_size": 16}, circumstances=slow)
    assert plan(given, name="auto").strategy == "rewarm-replay"
    against = {one["strategy"]: one["reason"] for one in auto.alternatives(given, {})}
    assert "training.max_steps holds it to 50 of the 619 steps that all rows together take" in against["retrain"]
    enough = signals(**LITTLE_OLD, training={"max_steps": 700, "train_batch_size": 16})
    assert auto.choose(enough, {}).candidate.label == "retrain"


def test_a_choice_that_overruns_the_budget_as_well_says_so() -> None:
    made = plan(signals(circumstances=Circumstances(tokens_per_s=1.0, max_hours=0.1)), name="auto")
    assert re.search(r"Even so its longest job would overrun the budget, \d\.\d h of 0.1 h allowed", made.reason)
    quick = plan(signals(circumstances=Circumstances(tokens_per_s=1e6, max_hours=0.1)), name="auto")
    assert "budget" not in quick.reason


def test_a_retrain_whose_speed_is_unknown_says_so() -> None:
    unknown = Circumstances(max_hours=0.1)
    against = {one["strategy"]: one["reason"] for one in auto.alternatives(signals(circumstances=unknown), {})}
    assert ", speed unknown against 0.1 h allowed;" in against["retrain"]
    chosen = auto.choose(signals(**LITTLE_OLD, circumstances=unknown), {})
    assert chosen.candidate.label == "retrain"
    assert chosen.reason.endswith(", speed unknown against 0.1 h allowed")


def test_many_small_increments_plan_a_trunk_and_go_on_with_it() -> None:
    small = {**SMALL_BATCHES, "task": "sft"}
    first = plan(signals(**small), name="auto")
    assert tuple(first.jobs) == ("trunk", "release")
    parent = {name: one.value for name, one in first.values.items()}
    few = {**small, "old": SMALL_BATCHES["old"][:1], "new": (source("batch-5", 1600),)}
    second = plan(signals(**few, parent_settings=parent, parent_state=TRUNK), name="auto")
    assert "goes on without warming up again" in second.reason
    far = {
        **few,
        "new": (source("batch-5", 1600, loss=3.6),),
        "training": {"train_batch_size": 4, "max_steps": 100},
    }
    assert plan(signals(**far, parent_settings=parent, parent_state=TRUNK), name="auto").values["schedule"].value == (
        "cosine"
    )


def test_replay_with_half_of_the_matrices_frozen_is_one_stage() -> None:
    made = plan(signals(circumstances=decisions("refused", "refused")), name="auto")
    assert (made.strategy, made.values["selection"].value, made.values["mixing"].value) == (
        "half-finetune", "half", "replay",
    )  # fmt: skip


def test_a_rule_whose_composition_cannot_be_planned_gives_way() -> None:
    given = signals(parameters=(), circumstances=decisions("refused", "refused"))
    assert plan(given, name="auto").strategy == "rewarm-replay"
    against = {one["strategy"]: one["reason"] for one in auto.alternatives(given, {})}
    assert against["half-finetune/replay"].startswith("it cannot be planned: ")


@pytest.mark.parametrize("changes", [{}, SMALL_BATCHES, LITTLE_OLD, {"old": (), "anchor": None}])
def test_every_other_candidate_is_turned_down_with_a_reason(changes: Json) -> None:
    given = signals(**changes)
    chosen = auto.choose(given, {}).candidate.label
    turned_down = [one["strategy"] for one in auto.alternatives(given, {})]
    assert sorted([chosen, *turned_down]) == sorted(candidates())
    assert all(one["reason"] for one in auto.alternatives(given, {}))


@pytest.mark.parametrize("task", ["causal-lm", "sft"])
def test_what_only_a_name_asks_for_is_turned_down_with_an_honest_reason(task: Task) -> None:
    against = {one["strategy"]: one["reason"] for one in auto.alternatives(signals(task=task), {})}
    assert f"for {task} nothing shows yet" in against["mos"]
    assert "better than replay of 3 old sources" in against["data-mixing"]
    alone = {one["strategy"]: one["reason"] for one in auto.alternatives(signals(old=(), anchor=None), {})}
    assert alone["data-mixing"] == "there is nothing earlier to weigh the new data against"


def test_new_classes_ask_for_adapters_of_their_own() -> None:
    around = Circumstances(new_labels=("green", "teal"), known_labels=("red",))
    labels = ("blue", "red", "green", "teal")
    given = signals(
        task="classification",
        labels=labels,
        taught_labels=labels,
        parent_labels=labels[:2],
        circumstances=around,
    )
    choice = auto.choose(given, {})
    assert choice.candidate.label == "mos/base"
    assert "2 of the 3 classes in the new batches are new beside 2" in choice.reason
    job = train_job(plan(given, name="auto"))
    selection = adapter_selection(job)
    assert (job.init, selection.name, selection.start) == ("@base/answer/model", "t1", None)
    assert set(replay_mixing(job).new) == {"anchor", "batch-1", "batch-2", "batch-3"}

    def chosen_with(**changes: Any) -> str:
        return auto.choose(given.model_copy(update=changes), {}).candidate.label

    few = around.model_copy(update={"new_labels": ("green",), "known_labels": ("red", "blue")})
    assert chosen_with(circumstances=few) == "rewarm-replay"
    slow = around.model_copy(update={"tokens_per_s": 1.0, "max_hours": 0.1})
    assert chosen_with(circumstances=slow) == "rewarm-replay"
    assert chosen_with(taught_labels=labels[1:]) == "rewarm-replay"

    def against_base(**changes: Any) -> str:
        found = auto.alternatives(given.model_copy(update=changes), {})
        return next(one["reason"] for one in found if one["strategy"] == "mos/base")

    assert re.search(r"everything again, \d\.\d h of 0.1 h allowed", against_base(circumstances=slow))
    bank: Json = {"parent_answer": ("answer/bank",), "parent_settings": Resolved(adapter="t1")}
    assert against_base(**bank).startswith("the live version is a bank already")
    assert chosen_with(**bank) == "mos"


def test_the_reason_against_another_candidate_is_the_condition_that_it_is_short_of() -> None:
    def against(label: str, *, task: Task = "sft", **changes: Any) -> str:
        given = signals(task=task, **changes)
        return next(one["reason"] for one in auto.alternatives(given, {}) if one["strategy"] == label)

    infinite = "rewarm-replay/infinite"
    assert against(infinite) == "2 earlier batches are few; it asks for 3"
    old = tuple(source(f"batch-{number}", 800) for number in range(3))
    large = against(infinite, old=old, new=(source("batch-9", 1600),))
    assert large == "1600 new rows are 55% of 2900 old ones; it asks for at most 25%"
    short = {"old": old, "new": (source("batch-9", 112),)}
    for task in ("sft", "causal-lm"):
        assert against(infinite, task=task, **short) == "a stage of 7 steps is short; it asks for 8"
    far = {**SMALL_BATCHES, "new": (source("batch-5", 200, loss=3.6),)}
    assert against(infinite, **far).startswith("batch-5 is a new domain, and the schedule")
    assert against(infinite, task="causal-lm", **LITTLE_OLD) == (
        "the measurements ask for retrain first (retraining is cheap)"
    )
    moved: Json = {"circumstances": forgotten(0.15), "parent_settings": {"replay": 0.05}}
    assert "15.0% worse than at best (5.0% allowed) after 5% of replay" in against("half-finetune/replay", **moved)


@pytest.mark.parametrize("old", [{}, {"old": (), "anchor": None}])
def test_a_bank_of_adapters_goes_on(old: Json) -> None:
    assert (
        auto.choose(
            signals(parent_answer=("answer/bank",), parent_settings={"adapter": "t1"}, **old), {}
        ).candidate.label
        == "mos"
    )


def test_a_batch_far_from_all_that_is_known_is_a_new_domain() -> None:
    given = signals(new=(source("batch-3", loss=3.4), source("batch-4", loss=3.6)))
    assert new_domains(given) == ("batch-4",)


def test_why_texts_ask_for_a_trunk_is_what_was_measured() -> None:
    """Every pair of average losses in the rule's source is one of the kept results, at its length of a stage."""
    said = re.findall(r"(\d\.\d{3}) and (\d\.\d{3}) \((\w+) (?:domains|years), (\d+) steps", rules.TRUNK_MEASURED)
    kept = [(preset, part) for preset in ("standard", "quick") for part in ("domains", "temporal")]
    found = [_beside_rewarming(*one) for one in kept]
    assert [(infinite, replay, int(steps)) for infinite, replay, _, steps in said] == found
    assert all(infinite < replay for infinite, replay, _ in found)
    more = [_tokens(preset, part, "infinite") / _tokens(preset, part, "replay") - 1 for preset, part in kept]
    assert re.findall(r"(\d) to (\d) % more tokens", rules.TRUNK_MEASURED) == [
        (f"{100 * min(more):.0f}", f"{100 * max(more):.0f}")
    ]
    assert all(steps >= rules.FEW_STEPS for *_, steps in found)


def test_what_a_trunk_forgot_is_what_was_measured() -> None:
    arms = {name: _forgetting(name) for name in ("infinite", "replay", "half, replay")}
    assert re.findall(r"0\.\d{3}", rules.TRUNK_MEASURED) == list(arms.values())
    assert f"{arms['infinite']} against {arms['replay']}" in against.TRUNK_BESIDE_REWARMING
    assert f"{arms['infinite']} against {arms['half, replay']}" in against.TRUNK_BESIDE_HALF
    years = {name: _anchor_forgotten(name) for name in ("infinite", "replay")}
    assert f"{years['infinite']} against {years['replay']}" in against.TRUNK_BESIDE_REWARMING


@pytest.mark.parametrize("preset", ["standard", "quick"])
def test_texts_stay_on_a_trunk_where_replay_was_not_enough_for_so_it_was_measured(preset: str) -> None:
    """Kept results: after a quarter of replay the anchor had risen beyond half its tolerance; the trunk was ahead."""
    first, second = _cells(preset, "domains")["auto"][0]["stages"][:2]
    assert first["values"]["replay"] == share.STRONG
    rise = second["values"]["anchor_rise"]
    assert rise > signals().anchor_tolerance / 2
    made = plan(
        signals(parent_settings=first["values"], parent_state=TRUNK, circumstances=forgotten(rise)), name="auto"
    )
    assert (made.values["rule"].value, second["values"]["rule"]) == ("a trunk of texts", "a trunk of texts")


def test_a_trunk_says_its_steps_with_the_rows_that_only_the_last_release_saw() -> None:
    first = plan(signals(), name="auto")
    parent = {name: one.value for name, one in first.values.items()}
    trained = source("batch-3", seen_rows=1300)
    after = signals(new=(source("batch-4", 240),), old=(trained,), parent_settings=parent, parent_state=TRUNK, stage=2)
    second = plan(after, name="auto")
    assert (first.values["left_over"].value, second.values["steps"].value) == ({"batch-3": 213}, 29)
    assert "a stage of 29 steps of texts" in second.reason


def _cells(preset: str, part: str) -> dict[str, list[Json]]:
    """The cells of each arm, one a seed."""
    found: dict[str, list[Json]] = {}
    for one in json.loads((RESULTS / f"domains-{preset}.json").read_text())[part]["cells"]:
        found.setdefault(one["cell"]["arm"], []).append(one)
    return found


def _forgetting(arm: str) -> str:
    """Over the domains before the last, as docs/benchmarks.md has it."""
    found = []
    for stages in (one["stages"] for one in _cells("standard", "domains")[arm]):
        names = [one["name"] for one in stages]
        found.append(metrics.forgetting([[-one["scores"][name] for name in names] for one in stages]))
    return f"{statistics.fmean(found):.3f}"


def _anchor_forgotten(arm: str) -> str:
    """Over the years, from the base's loss."""
    cells = _cells("standard", "temporal")[arm]
    return f"{statistics.fmean(one['stages'][-1]['scores'][ANCHOR] - one['base'][ANCHOR] for one in cells):.3f}"


def _tokens(preset: str, part: str, arm: str) -> float:
    cells = _cells(preset, part)[arm]
    return statistics.fmean(sum(stage["tokens"] for stage in one["stages"]) for one in cells)


def _beside_rewarming(preset: str, part: str) -> tuple[str, str, int]:
    """Average loss at the end of the infinite schedule and of re-warming, and steps of a usual stage."""
    infinite, replay = (_cells(preset, part)[arm] for arm in ("infinite", "replay"))
    ends = [
        statistics.fmean(statistics.fmean(one["stages"][-1]["scores"].values()) for one in cells)
        for cells in (infinite, replay)
    ]
    usual = round(statistics.median(stage["steps"] for stage in replay[0]["stages"]))
    return f"{ends[0]:.3f}", f"{ends[1]:.3f}", usual
