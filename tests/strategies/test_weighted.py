"""The weighted sampler: exact counts under weights that change, the same after any interruption, and its limits."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from strategies.errors import BadPlan, BadState, Diverged
from strategies.mixing.exact import decimals, rounded
from strategies.mixing.replay import ReplayMixer
from strategies.mixing.samplers import mixer
from strategies.mixing.simplex import Guard, Weights, caps, limit_change, project, within
from strategies.mixing.trajectory import MixturePoint, write_trajectory
from strategies.mixing.weighted import WeightedMixer
from strategies.parts import ReplayMixing, SkillItReweighting, WeightedMixing
from strategies.settings import Json
from strategies.settings.mixing import MixtureLimits

Row = tuple[str, int]
Mixture = dict[str, float]
ROWS = {"a1": 30, "a2": 17, "b": 23, "c": 41}
DOMAINS = {"a": ("a1", "a2"), "b": ("b",), "c": ("c",)}


def mixing(**changes: Any) -> WeightedMixing:
    plain: Json = {"domains": DOMAINS, "weights": {"a": "0.25", "b": "0.1"}, "rest": "c", "batch": 8, "order": 7}
    return WeightedMixing(**{**plain, **changes})


class Scripted:
    """Weights that a test has written down, one after the other."""

    def __init__(self, script: list[Mixture]) -> None:
        self.script, self.at = script, 0

    def update(self, step: int, before: Weights, losses: Weights) -> Weights:
        self.at += 1
        return self.script[self.at - 1]

    def state_dict(self) -> Json:
        return {"at": self.at}

    def load_state_dict(self, state: Json) -> None:
        self.at = state["at"]


def scripted(script: list[Mixture], *, every: int = 3, steps: int = 30, **changes: Any) -> WeightedMixer:
    return WeightedMixer(mixing(observe_every=every, **changes), ROWS, steps=steps, policy=Scripted(script))


def go_on(sampler: WeightedMixer, steps: int, every: int = 3) -> list[list[Row]]:
    """Draw as the loop does: losses are shown before the draws that may depend on them."""
    batches = []
    for _ in range(steps):
        if sampler.step % every == 0 and sampler.observed != sampler.step:
            sampler.observe(sampler.step, {"set": 1.0})
        batches.append(sampler.draw(sampler.step + 1))
    return batches


def counted(batches: Iterable[list[Row]]) -> Counter[str]:
    of = {source: name for name, sources in DOMAINS.items() for source in sources}
    return Counter(of[source] for batch in batches for source, _ in batch)


mixtures = (
    st.lists(st.integers(0, 9), min_size=3, max_size=3)
    .filter(any)
    .map(lambda parts: {name: part / sum(parts) for name, part in zip("abc", parts, strict=True)})
)


@given(script=st.lists(mixtures, min_size=10, max_size=10), batch=st.integers(1, 9))
def test_no_domain_is_above_its_quota_and_all_together_are_at_most_one_row_late(
    script: list[Mixture], batch: int
) -> None:
    sampler = scripted(script, batch=batch)
    quota, drawn = dict.fromkeys("ab", Fraction(0)), Counter[str]()
    for _ in range(30):
        found = counted(go_on(sampler, 1))
        drawn.update(found)
        quota = {name: quota[name] + Fraction(sampler.decimals()[name]) * batch for name in "ab"}
        late = [math.floor(quota[name]) - drawn[name] for name in "ab"]
        assert found.total() == batch
        assert min(late) >= 0
        assert sum(late) <= 1


@given(script=st.lists(mixtures, min_size=10, max_size=10), batch=st.integers(1, 9))
def test_floors_are_exact_where_the_rest_has_room(script: list[Mixture], batch: int) -> None:
    roomy = [{**mixture, "c": mixture["c"] + 2} for mixture in script]
    script = [{name: weight / sum(one.values()) for name, weight in one.items()} for one in roomy]
    sampler = scripted(script, batch=max(3, batch))
    quota, drawn = dict.fromkeys("ab", Fraction(0)), Counter[str]()
    for _ in range(30):
        drawn.update(counted(go_on(sampler, 1)))
        quota = {name: quota[name] + Fraction(sampler.decimals()[name]) * max(3, batch) for name in "ab"}
        assert {name: drawn[name] for name in "ab"} == {name: math.floor(quota[name]) for name in "ab"}


@given(share=st.integers(0, 100), batch=st.integers(1, 9), steps=st.integers(1, 60))
def test_two_domains_get_what_replay_gives_them(share: int, batch: int, steps: int) -> None:
    part = str(Fraction(share, 100))
    two = WeightedMixing(domains={"o": ("o",), "n": ("n",)}, weights={"o": part}, rest="n", batch=batch, order=7)
    replay = ReplayMixing(new=("n",), old={"o": "1"}, share=part, batch=batch, order=7)
    samplers = WeightedMixer(two, {"o": 9, "n": 20}, steps=steps), ReplayMixer(replay, {"o": 9, "n": 20})
    for step in range(1, steps + 1):
        assert sorted(samplers[0].draw(step)) == sorted(samplers[1].draw(step))


def test_many_domains_in_small_batches_are_late_by_less_than_their_number() -> None:
    names = [f"d{i}" for i in range(9)]
    weights = dict.fromkeys(names[1:], "1/9")
    small = mixing(domains={name: (name,) for name in names}, weights=weights, rest="d0", batch=2)
    sampler, drawn = WeightedMixer(small, dict.fromkeys(names, 5), steps=90), Counter[str]()
    for step in range(1, 91):
        drawn.update(source for source, _ in sampler.draw(step))
        floor = 2 * step // 9
        assert all(drawn[name] <= floor for name in names[1:])
        assert sum(floor - drawn[name] for name in names[1:]) <= 7
    assert all(drawn[name] >= 19 for name in names)
    assert drawn["d0"] <= 27


@settings(max_examples=50, deadline=None)
@given(script=st.lists(mixtures, min_size=10, max_size=10), kill=st.integers(0, 30), again=st.integers(0, 30))
def test_a_run_killed_at_any_steps_draws_what_the_whole_run_draws(script: list[Mixture], kill: int, again: int) -> None:
    limits = MixtureLimits(epochs_max=20)
    whole = go_on(scripted(script, limits=limits), 30)
    part = scripted(script, limits=limits)
    batches = go_on(part, kill)
    for steps in (min(again, 30 - kill), 30 - kill - min(again, 30 - kill)):
        state = json.loads(json.dumps(part.state_dict()))
        part = scripted(script, limits=limits)
        part.load_state_dict(state)
        batches += go_on(part, steps)
    assert batches == whole


def test_a_domain_takes_every_row_of_its_sources_once_an_epoch() -> None:
    rows = [row for batch in go_on(WeightedMixer(mixing(), ROWS, steps=60), 47) for row in batch if row[0][0] == "a"]
    everything = {(name, row) for name in ("a1", "a2") for row in range(ROWS[name])}
    assert Counter(rows) == dict.fromkeys(everything, 2)
    assert len(set(rows[:46])) == 46
    assert {source for source, _ in rows[:12]} == {"a1", "a2"}


def test_a_later_stage_takes_the_rows_that_an_earlier_one_has_left() -> None:
    first = ReplayMixer(ReplayMixing(new=("c",), old={"b": "1"}, share="0.5", batch=8, order=3), ROWS)
    seen = {row for step in range(1, 5) for row in first.draw(step)}
    second = WeightedMixer(mixing(), ROWS, steps=9, state=first.state_dict())
    after = {row for batch in go_on(second, 4) for row in batch}
    assert len(seen) == 32
    assert not seen & after


def test_the_same_mixing_draws_the_same_golden_rows() -> None:
    drawn = WeightedMixer(mixing(batch=4), ROWS, steps=1).draw(1)
    assert drawn == [("c", 7), ("c", 10), ("c", 37), ("a1", 21)]


def test_losses_are_shown_only_at_the_step_that_was_drawn_last() -> None:
    sampler = scripted([{"a": 0.2, "b": 0.2, "c": 0.6}])
    sampler.draw(1)
    with pytest.raises(BadState, match="stop at step 0"):
        sampler.observe(0, {"set": 1.0})


@pytest.mark.parametrize("losses", [{"set": math.nan}, {"set": math.inf}, {}])
def test_losses_that_say_nothing_end_the_run(losses: dict[str, float]) -> None:
    with pytest.raises(Diverged, match="missing or not finite"):
        scripted([]).observe(0, losses)


def test_the_course_of_the_mixture_is_kept_a_point_a_line(tmp_path: Path) -> None:
    sampler = scripted([{"a": 0.5, "b": 0.2, "c": 0.3}, {"a": 0.1, "b": 0.1, "c": 0.8}])
    go_on(sampler, 5)
    write_trajectory(tmp_path / "evidence" / "mixture.jsonl", sampler.trajectory)
    lines = (tmp_path / "evidence" / "mixture.jsonl").read_text().splitlines()
    course = [MixturePoint.model_validate_json(line) for line in lines]
    assert [(point.step, point.weights["a"], point.losses) for point in course] == [
        (0, "0.5", {"set": 1.0}),
        (3, "0.1", {"set": 1.0}),
    ]


def test_the_last_losses_are_kept_and_move_nothing() -> None:
    sampler = scripted([{"a": 0.2, "b": 0.2, "c": 0.6}], steps=3)
    go_on(sampler, 3)
    sampler.observe(3, {"set": 0.5})
    assert [point.losses["set"] for point in sampler.trajectory] == [1.0, 0.5]
    assert sampler.trajectory[0].weights == sampler.trajectory[1].weights


@given(script=st.lists(mixtures, min_size=10, max_size=10))
def test_no_domain_is_taken_more_often_than_its_epochs_allow(script: list[Mixture]) -> None:
    sampler = scripted(script, batch=8, limits=MixtureLimits(floor=0, max_change=2, epochs_max=3))
    drawn = counted(go_on(sampler, 30))
    # A changed weight rounds the rows still owed to a whole one.
    assert drawn["a"] <= 3 * 47 + 1
    assert drawn["b"] <= 3 * 23 + 1
    assert drawn["c"] <= 3 * 41 + 1


@given(before=mixtures, after=mixtures)
def test_limits_keep_floor_change_and_sum(before: Mixture, after: Mixture) -> None:
    limits = MixtureLimits()
    before = project(before, floor=0.1 / 3)
    found = within(limits, before, after, most=None)
    assert min(found.values()) >= 0.1 / 3 - 1e-12
    assert sum(abs(found[name] - before[name]) for name in found) <= 0.3 + 1e-9
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)


@given(before=mixtures, after=mixtures, left=st.lists(st.integers(0, 40), min_size=3, max_size=3), budget=st.just(40))
def test_a_cap_that_the_last_mixture_kept_is_kept_by_the_next(
    before: Mixture, after: Mixture, left: list[int], budget: int
) -> None:
    most = caps(dict(zip("abc", left, strict=True)), budget)
    assume(sum(most.values()) > 1)
    before = project(before, floor=0.1 / 3, most=most)
    found = within(MixtureLimits(), before, after, most=most)
    assert all(found[name] <= most[name] + 1e-9 for name in found)


@pytest.mark.parametrize("count", range(2, 65))
def test_a_floor_of_equal_weights_leaves_nothing_to_move(count: int) -> None:
    before = {f"domain-{at}": 1 / count for at in range(count)}
    after = {name: float(at == 0) for at, name in enumerate(before)}
    assert within(MixtureLimits(floor=1), before, after, most=None) == pytest.approx(before)


def test_projection_scales_what_is_neither_at_the_floor_nor_at_the_cap() -> None:
    found = project({"a": 0.6, "b": 0.3, "c": 0.1, "d": 0.0}, floor=0.05, most={"a": 0.4, "b": 1, "c": 1, "d": 1})
    assert found == pytest.approx({"a": 0.4, "b": 0.55 * 0.75, "c": 0.55 * 0.25, "d": 0.05})


def test_caps_that_cannot_all_be_kept_repeat_every_domain_equally() -> None:
    most = caps({"a": 10, "b": 30}, 100)
    assert project({"a": 0.9, "b": 0.1}, floor=0.05, most=most) == pytest.approx({"a": 0.25, "b": 0.75})


@given(before=mixtures, after=mixtures)
def test_where_nothing_is_left_of_any_domain_the_other_limits_go_on(before: Mixture, after: Mixture) -> None:
    used_up = caps(dict.fromkeys(before, -3.0), 40)
    before = project(before, floor=0.1 / 3)
    assert within(MixtureLimits(), before, after, most=used_up) == within(MixtureLimits(), before, after, most=None)


def test_a_lone_domain_that_is_used_up_is_repeated() -> None:
    assert project({"batch-1": 1.0}, floor=0.1, most=caps({"batch-1": 0}, 10)) == {"batch-1": 1.0}


def test_the_largest_change_is_a_step_on_the_way() -> None:
    found = limit_change({"a": 0.5, "b": 0.5}, {"a": 1.0, "b": 0.0}, 0.3)
    assert found == pytest.approx({"a": 0.65, "b": 0.35})
    assert limit_change({"a": 0.5, "b": 0.5}, {"a": 0.6, "b": 0.4}, 0.3) == {"a": 0.6, "b": 0.4}


@given(mixtures)
def test_rounded_weights_sum_to_one_and_read_back(weights: Mixture) -> None:
    exact = rounded(weights, "b")
    assert sum(exact.values()) == 1
    assert all(abs(exact[name] - weights[name]) < 3e-6 for name in weights)
    assert all(Fraction(decimals(weight)) == weight and "/" not in decimals(weight) for weight in exact.values())


def guard() -> Guard:
    return Guard({"uniform": {"a": 1, "b": 1}, "prior": {"a": 3, "b": 1}})


def test_the_guard_takes_over_after_three_steps_below_in_a_row() -> None:
    watching = guard()
    course = [(0.1, 0.2), (0.1, 0.2), (0.3, 0.2), (0.1, 0.2), (0.1, 0.2), (0.1, 0.2), (0.9, 0.2)]
    answers = [watching.check(own, {"uniform": 0.0, "prior": best}) for own, best in course]
    assert answers == [None] * 5 + [{"a": 0.75, "b": 0.25}] * 2
    assert watching.chosen == "prior"


def test_the_guard_goes_on_counting_after_a_restart() -> None:
    first, second = guard(), guard()
    for _ in range(2):
        first.check(0.0, {"uniform": 1.0})
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.check(math.nan, {"uniform": 1.0}) == {"a": 0.5, "b": 0.5}


def test_a_guard_without_anything_to_compare_with_is_refused() -> None:
    with pytest.raises(BadPlan, match="at least the prior"):
        Guard({})
    with pytest.raises(BadState, match="no longer knows"):
        guard().load_state_dict({"below": 3, "chosen": "regmix"})


@pytest.mark.parametrize(
    ("changes", "rows", "reason"),
    [
        ({"weights": {"a": "0.2"}}, ROWS, "every domain but the one named as rest"),
        ({"rest": "z"}, ROWS, "every domain but the one named as rest"),
        ({"weights": {"a": "0.7", "b": "0.4"}}, ROWS, "more than 1"),
        ({"weights": {"a": "-0.1", "b": "0.4"}}, ROWS, "negative"),
        ({"weights": {"a": "much", "b": "0.4"}}, ROWS, "not a number"),
        ({}, {**ROWS, "b": 0}, "domain b has no rows"),
        ({}, {"a1": 1, "b": 1, "c": 1}, "no rows are given for source a2"),
        ({"domains": {**DOMAINS, "c": ("b",)}}, ROWS, "source b is in two domains"),
        ({"reweight": SkillItReweighting(eta=1, window=3, graph={"a": {"a": 1}})}, ROWS, "set observe_every"),
    ],
)
def test_a_mixing_that_cannot_be_drawn_is_refused(changes: Json, rows: dict[str, int], reason: str) -> None:
    with pytest.raises(BadPlan, match=reason):
        WeightedMixer(mixing(**changes), rows, steps=9)


def test_a_checkpoint_of_another_mixing_is_refused() -> None:
    state = WeightedMixer(mixing(), ROWS, steps=9).state_dict()
    with pytest.raises(BadState, match="another mixing"):
        WeightedMixer(mixing(batch=4), ROWS, steps=9).load_state_dict(state)
    with pytest.raises(BadState, match="not as it was"):
        WeightedMixer(mixing(), {**ROWS, "b": 24}, steps=9).load_state_dict(state)


def test_the_kind_of_a_mixing_names_its_sampler() -> None:
    graph = {name: {name: 1.0} for name in DOMAINS}
    skilled = mixing(observe_every=2, reweight=SkillItReweighting(eta=1, window=3, graph=graph))
    sampler = mixer(skilled, ROWS, steps=9)
    assert isinstance(sampler, WeightedMixer)
    sampler.observe(0, dict.fromkeys("abc", 3.0))
    assert sampler.decimals() == {"a": "0.25", "b": "0.1", "c": "0.65"}
    assert isinstance(mixer(ReplayMixing(new=("b",), batch=2, order=1), ROWS, steps=9), ReplayMixer)
