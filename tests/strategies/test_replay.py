"""The replay sampler: exact counts, every row once an epoch, the same after any interruption."""

import json
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strategies.errors import BadPlan, BadState
from strategies.mixing.replay import ReplayMixer, old_rows
from strategies.parts import ReplayMixing
from strategies.settings import Json

GOLDEN = [("batch-2", 34), ("batch-3", 19), ("batch-3", 4), ("anchor", 24)]
Row = tuple[str, int]
ROWS = {"batch-2": 40, "batch-3": 23, "anchor": 31, "batch-1": 17}


def mixing(**changes: Any) -> ReplayMixing:
    plain: Json = {
        "new": ("batch-2", "batch-3"),
        "old": {"anchor": "31", "batch-1": "17"},
        "share": "0.25",
        "batch": 8,
        "order": 7,
    }
    return ReplayMixing(**{**plain, **changes})


def drawn(mixer: ReplayMixer, steps: int) -> list[list[Row]]:
    return [mixer.draw(step) for step in range(mixer.step + 1, mixer.step + 1 + steps)]


def flat(batches: Iterable[list[Row]]) -> list[Row]:
    return [row for batch in batches for row in batch]


@given(
    share=st.decimals(0, 1, places=3), batch=st.integers(1, 9), steps=st.integers(0, 30), order=st.integers(0, 2**63)
)
def test_old_rows_are_the_floor_of_the_exact_share(share: Decimal, batch: int, steps: int, order: int) -> None:
    mixer = ReplayMixer(mixing(share=str(share), batch=batch, order=order), ROWS)
    for step in range(1, steps + 1):
        assert len(mixer.draw(step)) == batch
        old = sum(mixer.state_dict()["drawn"].values())
        assert old == int(Fraction(str(share)) * batch * step) == old_rows(str(share), batch, step)


def test_the_count_is_of_rows_that_really_came_from_old_sources() -> None:
    batches = drawn(ReplayMixer(mixing(share="0.29", batch=7), ROWS), 50)
    for steps in range(51):
        old = sum(source in ("anchor", "batch-1") for source, _ in flat(batches[:steps]))
        assert old == steps * 7 * 29 // 100


def test_replay_takes_the_place_of_new_rows_and_adds_none() -> None:
    without, half = (drawn(ReplayMixer(mixing(share=share), ROWS), 12) for share in ("0", "0.5"))
    assert [len(batch) for batch in without] == [len(batch) for batch in half] == [8] * 12
    assert sum(source in ("batch-2", "batch-3") for source, _ in flat(half)) == 48


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 50), min_size=1), st.integers(1, 60))
def test_old_sources_keep_close_to_their_weights(weights: dict[str, int], steps: int) -> None:
    mixer = ReplayMixer(
        mixing(new=(), old={name: str(weight) for name, weight in weights.items()}, share="1", batch=5),
        dict.fromkeys(weights, 9),
    )
    drawn(mixer, steps)
    counts = mixer.state_dict()["drawn"]
    total = sum(weights.values())
    assert sum(counts.values()) == 5 * steps
    assert all(abs(counts[name] - 5 * steps * weight / total) < len(weights) for name, weight in weights.items())


def test_new_sources_are_one_stream_that_takes_every_row_once_an_epoch() -> None:
    rows = flat(drawn(ReplayMixer(mixing(share="0", batch=7), ROWS), 18))
    everything = {(name, row) for name in ("batch-2", "batch-3") for row in range(ROWS[name])}
    first, second = rows[:63], rows[63:126]
    assert set(first) == set(second) == everything
    assert first != second
    assert {source for source, _ in first[:20]} == {"batch-2", "batch-3"}


def test_an_old_source_takes_every_row_once_before_it_begins_again() -> None:
    rows = [row for row in flat(drawn(ReplayMixer(mixing(share="0.5"), ROWS), 40)) if row[0] == "batch-1"]
    assert len(rows) > 2 * 17
    assert set(Counter(rows[:17]).values()) == {1}
    assert min(Counter(rows).values()) >= 2


def test_the_order_depends_on_the_seed_alone() -> None:
    same = [drawn(ReplayMixer(mixing(), ROWS), 20) for _ in range(2)]
    assert same[0] == same[1]
    assert drawn(ReplayMixer(mixing(order=8), ROWS), 20) != same[0]


LENGTHS = {
    name: np.random.default_rng(at).integers(1, most, ROWS[name])
    for at, (name, most) in enumerate({"batch-2": 20, "batch-3": 30, "anchor": 400, "batch-1": 90}.items())
}


@given(share=st.decimals(0, 1, places=3), batch=st.integers(1, 9), steps=st.integers(1, 40))
def test_a_share_of_tokens_is_kept_within_a_row_of_each_source(share: Decimal, batch: int, steps: int) -> None:
    """Old rows are much longer here; of the old tokens each source has its weight's part."""
    rows = flat(drawn(ReplayMixer(mixing(share=str(share), batch=batch), ROWS, tokens=LENGTHS), steps))
    assert len(rows) == batch * steps
    taken = Counter[str]()
    for name, row in rows:
        taken[name] += int(LENGTHS[name][row])
    old, longest = taken["anchor"] + taken["batch-1"], max(map(max, LENGTHS.values()))
    assert abs(old - Fraction(str(share)) * taken.total()) <= longest
    assert abs(taken["anchor"] - Fraction(31, 48) * old) <= longest


def test_a_ledger_of_tokens_goes_on_after_a_kill() -> None:
    whole = drawn(ReplayMixer(mixing(), ROWS, tokens=LENGTHS), 30)
    part = ReplayMixer(mixing(), ROWS, tokens=LENGTHS)
    batches = drawn(part, 11)
    state = json.loads(json.dumps(part.state_dict()))
    part = ReplayMixer(mixing(), ROWS, tokens=LENGTHS)
    part.load_state_dict(state)
    assert batches + drawn(part, 19) == whole


def test_rows_of_one_length_are_drawn_as_rows_are() -> None:
    alike = {name: np.full(count, 1) for name, count in ROWS.items()}
    assert drawn(ReplayMixer(mixing(), ROWS, tokens=alike), 20) == drawn(ReplayMixer(mixing(), ROWS), 20)


def test_rows_keep_their_golden_order() -> None:
    assert ReplayMixer(mixing(batch=4), ROWS).draw(1) == GOLDEN


@settings(max_examples=60)
@given(
    share=st.sampled_from(["0", "0.05", "0.3", "0.5"]),
    batch=st.integers(1, 9),
    kill=st.integers(0, 25),
    again=st.integers(0, 25),
)
def test_a_run_killed_at_any_steps_draws_what_the_whole_run_draws(
    share: str, batch: int, kill: int, again: int
) -> None:
    settings = mixing(share=share, batch=batch)
    whole = drawn(ReplayMixer(settings, ROWS), 60)
    part = ReplayMixer(settings, ROWS)
    batches = drawn(part, kill)
    for steps in (again, 60 - kill - again):
        state = json.loads(json.dumps(part.state_dict()))
        part = ReplayMixer(settings, ROWS)
        part.load_state_dict(state)
        batches += drawn(part, steps)
    assert batches == whole


def test_the_next_stage_replays_on_where_the_last_one_stopped() -> None:
    first = ReplayMixer(mixing(), ROWS)
    before = {row for row in flat(drawn(first, 8)) if row[0] == "anchor"}
    second = ReplayMixer(mixing(new=("batch-4",), order=8), {**ROWS, "batch-4": 50}, first.state_dict())
    after = {row for row in flat(drawn(second, 8)) if row[0] == "anchor"}
    assert len(before) + len(after) <= ROWS["anchor"]
    assert not before & after


def test_a_batch_that_becomes_old_is_replayed_from_its_unseen_rows_on() -> None:
    first = ReplayMixer(mixing(share="0", new=("batch-2",)), ROWS)
    seen = set(flat(drawn(first, 3)))
    second = ReplayMixer(mixing(new=("batch-3",), old={"batch-2": "1"}, share="0.5"), ROWS, first.state_dict())
    replayed = {row for row in flat(drawn(second, 4)) if row[0] == "batch-2"}
    assert len(replayed) == 16
    assert not replayed & seen


def test_the_release_takes_rows_that_the_trunk_has_not() -> None:
    trunk = ReplayMixer(mixing(share="0"), ROWS)
    of_trunk = flat(drawn(trunk, 6))
    release = ReplayMixer(mixing(share="0"), ROWS, trunk.state_dict())
    assert len(set(of_trunk + flat(drawn(release, 1)))) == 56


@given(taken=st.integers(0, 7), order=st.integers(0, 99))
def test_rows_left_over_by_the_trunk_are_new_again_and_none_is_lost(taken: int, order: int) -> None:
    trunk = ReplayMixer(mixing(share="0", new=("batch-2",), batch=5), ROWS)
    of_trunk = set(flat(drawn(trunk, taken)))
    left = 40 - 5 * taken
    carried = mixing(share="0", new=("batch-3", "batch-2"), batch=1, order=order)
    following = ReplayMixer(carried, ROWS, trunk.state_dict())
    rows = flat(drawn(following, 23 + left))
    assert len(set(rows)) == 23 + left
    assert not of_trunk & set(rows)


def test_left_over_rows_mix_with_the_new_ones() -> None:
    trunk = ReplayMixer(mixing(share="0", new=("batch-2",), batch=5), ROWS)
    drawn(trunk, 4)
    following = ReplayMixer(mixing(share="0", new=("batch-3", "batch-2"), order=8), ROWS, trunk.state_dict())
    half = Counter(source for source, _ in flat(drawn(following, 2)))
    assert min(half["batch-2"], half["batch-3"]) >= 3


def test_no_more_of_a_source_is_new_than_was_left_over_whichever_job_draws_it_and_wherever_it_resumes() -> None:
    earlier = ReplayMixer(mixing(share="0", new=("batch-2",), batch=5), ROWS)
    drawn(earlier, 4)
    given = mixing(share="0", new=("batch-3", "batch-2"), batch=4, order=8, most={"batch-2": 5})
    trunk = ReplayMixer(given, ROWS, earlier.state_dict())
    rows = flat(drawn(trunk, 3))
    resumed = ReplayMixer(given, ROWS)
    resumed.load_state_dict(trunk.state_dict())
    rows += flat([resumed.draw(4)])
    release = ReplayMixer(given, ROWS, resumed.state_dict())
    rows += flat(drawn(release, 3))
    assert Counter(source for source, _ in rows) == {"batch-3": 23, "batch-2": 5}
    assert len(set(rows)) == 28
    again = Counter(source for source, _ in flat([release.draw(step) for step in range(4, 11)]))
    assert again == {"batch-3": 23, "batch-2": 5}


@given(order=st.integers(8, 99), steps=st.integers(0, 3))
def test_an_old_source_that_is_new_in_part_is_replayed_behind_its_new_rows(order: int, steps: int) -> None:
    earlier = ReplayMixer(mixing(share="0", new=("batch-2",), batch=5), ROWS)
    known = set(flat(drawn(earlier, 4)))
    both = mixing(share="0.25", old={"batch-2": "1"}, new=("batch-3", "batch-2"), order=order, most={"batch-2": 5})
    trunk = ReplayMixer(both, ROWS, earlier.state_dict())
    rows = flat(drawn(trunk, steps))
    resumed = ReplayMixer(both, ROWS)
    resumed.load_state_dict(trunk.state_dict())
    rows += flat(drawn(resumed, 3 - steps))
    rows += flat(drawn(ReplayMixer(both, ROWS, resumed.state_dict()), 1))
    again = [row for row in rows if row[0] == "batch-2"]
    assert len(rows) == len(set(rows)) == 32, "no row comes twice before all of them have come"
    assert 8 <= len(again) <= 8 + 5
    assert not known & set(again)


def test_a_source_is_new_and_old_only_where_what_is_new_of_it_is_bounded() -> None:
    with pytest.raises(BadPlan, match="named twice"):
        ReplayMixer(mixing(new=("batch-2", "batch-3"), old={"batch-2": "1"}), ROWS)


def test_a_source_whose_rows_have_changed_begins_a_new_epoch() -> None:
    first = ReplayMixer(mixing(), ROWS)
    drawn(first, 4)
    second = ReplayMixer(mixing(), {**ROWS, "anchor": 30}, first.state_dict())
    assert second.state_dict()["sources"]["anchor"] == {"rows": 30, "epoch": 1, "cuts": [[7, 0]]}


def test_sources_of_earlier_stages_keep_their_cursors() -> None:
    first = ReplayMixer(mixing(), ROWS)
    drawn(first, 4)
    second = ReplayMixer(mixing(old={}, share="0", new=("batch-3",)), ROWS, first.state_dict())
    assert second.state_dict()["sources"]["anchor"] == first.state_dict()["sources"]["anchor"]


def test_empty_sources_are_passed_over() -> None:
    mixer = ReplayMixer(mixing(), {**ROWS, "batch-3": 0, "batch-1": 0})
    assert {source for source, _ in flat(drawn(mixer, 20))} == {"batch-2", "anchor"}


def test_steps_are_drawn_in_turn() -> None:
    mixer = ReplayMixer(mixing(), ROWS)
    with pytest.raises(BadState, match="step 1 is next"):
        mixer.draw(2)


@pytest.mark.parametrize(
    ("changes", "rows", "reason"),
    [
        ({"share": "a lot"}, {}, "not a number"),
        ({"share": "1.5"}, {}, "between 0 and 1"),
        ({"old": {"anchor": "-1", "batch-1": "1"}}, {}, "negative"),
        ({"old": {"anchor": "0", "batch-1": "0"}}, {}, "all 0"),
        ({"new": ("batch-2", "anchor")}, {}, "named twice"),
        ({"new": ("batch-2", "batch-2")}, {}, "named twice"),
        ({"new": ("batch-9",)}, {}, "no rows are given"),
        ({}, {"batch-2": 0, "batch-3": 0}, "nothing to train on"),
        ({}, {"anchor": 0, "batch-1": 0}, "no old source has any"),
    ],
)
def test_a_mixing_that_cannot_be_drawn_is_refused(changes: Json, rows: dict[str, int], reason: str) -> None:
    with pytest.raises(BadPlan, match=reason):
        ReplayMixer(mixing(**changes), {**ROWS, **rows})


@pytest.mark.parametrize(
    "broken",
    [
        {"format": 2},
        {"format": 1, "sources": {"anchor": {"rows": 3}}},
        {"format": 1, "sources": {"anchor": {"rows": 3, "epoch": 0, "cuts": [[1, 9]]}}},
        {"format": 1, "sources": {"anchor": {"rows": 3, "epoch": 0, "cuts": []}}},
    ],
)
def test_a_broken_cursor_is_refused(broken: Json) -> None:
    with pytest.raises(BadState):
        ReplayMixer(mixing(), ROWS, broken)


def test_a_checkpoint_of_another_mixing_is_refused() -> None:
    state = ReplayMixer(mixing(), ROWS).state_dict()
    with pytest.raises(BadState, match="another mixing"):
        ReplayMixer(mixing(share="0.5"), ROWS).load_state_dict(state)
    with pytest.raises(BadState, match="not as it was"):
        ReplayMixer(mixing(), {**ROWS, "anchor": 30}).load_state_dict(state)
