"""The probe's rounds, budget and candidates, and what its result does to the choice."""

from typing import Any

import pytest

from strategies.chooser import choice, probing, rules
from strategies.chooser.candidates import candidates
from strategies.chooser.choice import StrategySettings
from strategies.chooser.evidence import in_words
from strategies.chooser.probing import Probing
from strategies.contract import Signals, probe
from strategies.contract.circumstances import Circumstances
from strategies.contract.probe import ProbeResult, Trial
from strategies.errors import BadPlan
from strategies.parts import Schedule
from strategies.settings import Json
from tests.strategies.makers import TRUNK, infinite_schedule, plan, signals, source


def settings(schedule: str | None = None, **values: Any) -> StrategySettings:
    return StrategySettings.model_validate({"name": "auto", "schedule": schedule, "probe": values})


def probed(given: Signals, asked: StrategySettings) -> Probing:
    """The probe, which is asked for and not run yet."""
    made = choice.probe(given, asked)
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("budget", "candidates", "keep", "wanted"),
    [
        (48, 4, 0.5, [(4, 6), (2, 12)]),
        (80, 4, 0.5, [(4, 10), (2, 20)]),
        (90, 8, 0.5, [(7, 4), (4, 7), (2, 15)]),
        (24, 2, 0.5, [(2, 12)]),
        (24, 4, 0.5, [(3, 4), (2, 6)]),
        (8, 4, 0.5, [(2, 4)]),
        (7, 4, 0.5, []),
        (90, 3, 0.9, [(3, 15), (2, 22)]),
    ],
)
def test_rounds_halve_the_candidates_and_keep_to_the_budget(
    budget: int, candidates: int, keep: float, wanted: list[tuple[int, int]]
) -> None:
    made = probe.rounds(budget, candidates, keep)
    assert [tuple(one) for one in made] == wanted
    assert probe.steps_of(made) <= budget


def test_the_incumbent_stays_whatever_it_scores() -> None:
    scores = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
    assert probe.survivors(scores, count=2, incumbent="d") == ("a", "d")
    assert probe.survivors(scores, count=2, incumbent="b") == ("a", "b")


@pytest.mark.parametrize(("judged", "chosen"), [({"a": 0.1, "b": 0.1}, "b"), ({"a": 0.1, "b": 0.2}, "a")])
def test_among_equals_the_incumbent_wins(judged: dict[str, float], chosen: str) -> None:
    assert probe.winner(judged, incumbent="b") == chosen


def test_a_probe_plans_the_whole_schedule_of_every_short_run() -> None:
    made = probed(signals(task="sft"), settings(budget=0.8))
    assert list(made.trials) == [
        "rewarm-replay", "rewarm-replay/infinite", "half-finetune/replay", "rewarm-replay/half",
    ]  # fmt: skip
    assert [tuple(one) for one in made.rounds] == [(4, 10), (2, 20)]
    assert (made.steps, made.stage_steps) == (80, 100)
    assert "80% of the retrain's 100" in made.reason
    for templates in made.trials.values():
        assert [one.steps for one in templates] == [length(one.schedule) for one in templates] == [10, 20]
        assert all(one.state == () and one.mixing.cursor is None for one in templates)


def length(schedule: Schedule) -> int:
    if schedule.kind == "cosine":
        return schedule.steps
    return schedule.warmup + schedule.cooldown + schedule.constant + schedule.anneal


def test_what_a_probe_may_try_and_what_rules_ask_for_are_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {*probing.ORDER, *(one.candidate for one in rules.RULES)} <= set(candidates())
    monkeypatch.setattr(probing, "ORDER", ("rewarm-reply",))
    with pytest.raises(KeyError, match="rewarm-reply"):
        choice.probe(signals(), settings())


def test_a_trunk_and_its_release_are_tried_as_one_run_that_starts_where_they_would() -> None:
    first = probed(signals(), settings(budget=0.8)).trials["rewarm-replay/infinite"][0]
    assert (first.init, first.optimizer) == ("@live/answer/model", None)
    schedule = infinite_schedule(first)
    assert min(schedule.warmup, schedule.anneal) > 0
    made = plan(signals(), name="auto")
    known = {name: one.value for name, one in made.values.items()}
    after = signals(new=(source("batch-4"),), parent_state=TRUNK, parent_settings=known, stage=2)
    again = probed(after, settings(budget=0.8)).trials["rewarm-replay/infinite"][0]
    assert (again.init, again.optimizer) == ("@live/state/trunk", "@live/state/optimizer")
    schedule = infinite_schedule(again)
    assert (schedule.warmup, schedule.constant, schedule.anneal) == (0, 9, 1)


def test_a_budget_above_one_is_in_tokens() -> None:
    given = signals(new=(source("batch-3", 1600, tokens=160_000),), old=(), anchor=source("anchor", 400, tokens=40_000))
    assert probed(given, settings(budget=64_000)).steps == 40


def test_no_short_run_is_longer_than_the_retrain() -> None:
    made = probed(signals(), settings(budget=1e12))
    assert {one.steps for one in made.rounds} == {made.stage_steps}
    assert made.steps == sum(one.candidates for one in made.rounds) * made.stage_steps


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"budget": 0.3}, "the budget does not pay for all 4: raise strategy.probe.budget"),
        ({"budget": 1.0, "candidates": 6}, "of 6 asked for a short run can show 5"),
    ],
)
def test_a_probe_that_tries_fewer_than_asked_says_why(asked: Json, why: str) -> None:
    made = probed(signals(), settings(**asked))
    assert made.reason.endswith(f"; {why}")
    assert len(made.trials) == made.rounds[0].candidates


@pytest.mark.parametrize(
    ("changes", "budget", "why"),
    [
        ({}, 0.07, "7 steps do not pay for two short runs"),
        ({"old": (), "anchor": None, "parameters": ()}, 1.0, "nothing else to try beside naive"),
    ],
)
def test_a_probe_that_cannot_be_run_says_why(changes: Json, budget: float, why: str) -> None:
    made = probed(signals(**changes), settings(budget=budget, schedule="cosine"))
    assert (made.trials, made.steps) == ({}, 0)
    assert why in made.reason


def test_a_probe_is_off_unless_asked_for_and_only_for_auto() -> None:
    assert choice.probe(signals(), StrategySettings()) is None
    named = StrategySettings.model_validate({"name": "naive", "probe": {}})
    with pytest.raises(BadPlan, match="probe tries what auto may choose"):
        choice.check(named, signals().training, "causal-lm")


def found(chosen: str | None) -> Circumstances:
    trials = [
        Trial(round=0, candidate=name, steps=10, tokens=640, score=score, judged=score)
        for name, score in (("rewarm-replay", 0.02), ("naive", -0.01))
    ]
    return Circumstances(probe=ProbeResult(chosen=chosen, reason="naive did best", trials=tuple(trials)))


def test_what_the_probe_found_overrules_the_rules() -> None:
    given = signals(circumstances=found("naive"))
    made = plan(given, name="auto", probe={})
    assert (made.strategy, made.values["rule"].value) == ("naive", "probe")
    assert made.reason.startswith("naive, because naive did best; the rules alone say rewarm-replay/infinite.")
    against = {one["strategy"]: one["reason"] for one in choice.alternatives(given, StrategySettings())}
    assert against["rewarm-replay"] == (
        "the probe scored it +2.00% after 10 steps, +2.00% on unseen documents; lower is better"
    )
    assert in_words(given)["probe, round 1"].startswith("naive -1.00% after 10 steps, judged -1.00%; rewarm-replay")


@pytest.mark.parametrize("chosen", [None, "a strategy that is gone"])
def test_a_probe_without_a_result_leaves_the_rules_choice(chosen: str | None) -> None:
    assert plan(signals(circumstances=found(chosen)), name="auto").strategy == "rewarm-replay"


def test_the_slices_hold_what_the_longest_run_can_take() -> None:
    given = signals(new=(source("batch-3", 4000),), training={"train_batch_size": 10, "max_steps": 100})
    made = probed(given, settings(budget=0.8))
    assert made.slices["batch-3"] == 301
    assert made.slices["batch-2"] == 301
    assert probed(signals(), settings(budget=0.8)).slices["anchor"] == 481
