"""The split is a pure function of the units and the key: enough is held out, and what belongs together stays so."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.ingest.snapshots import halves
from orchestrator.ingest.split import Choice, Side, Unit, choose

SIDES: st.SearchStrategy[Side] = st.sampled_from(("free", "train", "held"))
LABELS = st.sampled_from(["", "a", "b"])


def units(*sizes: int, label: str = "", side: Side = "free") -> list[Unit]:
    return [Unit(number, f"name-{label}-{number}", size, label, side) for number, size in enumerate(sizes)]


def held(choice: Choice, of: list[Unit]) -> int:
    return sum(unit.size for unit in of if unit.number in choice.held) + sum(choice.by_document.values())


MANY = st.lists(st.tuples(st.integers(1, 6), LABELS, SIDES), max_size=60).map(
    lambda found: [Unit(n, f"u{n}", size, label, side) for n, (size, label, side) in enumerate(found)]
)


@given(st.integers(0, 300))
def test_a_tenth_of_single_documents_is_held_out_and_at_least_one_of_five(count: int) -> None:
    of = units(*[1] * count)
    expected = 0 if count < 5 else max(1, int(count * 0.1 + 0.5))
    assert held(choose(of, share=0.1, key="k"), of) == expected


@given(MANY, st.randoms())
def test_the_choice_does_not_depend_on_the_order_of_arrival(of: list[Unit], chance: random.Random) -> None:
    shuffled = chance.sample(of, len(of))
    assert choose(of, share=0.1, key="k") == choose(shuffled, share=0.1, key="k")


@given(MANY)
def test_what_an_earlier_batch_trained_on_is_never_held_out(of: list[Unit]) -> None:
    choice = choose(of, share=0.1, key="k")
    trained = {unit.number for unit in of if unit.side == "train"}
    assert not trained & (choice.held | set(choice.by_document) | choice.no_room)


@given(MANY)
def test_a_held_unit_is_held_again_or_known_to_have_no_room(of: list[Unit]) -> None:
    choice = choose(of, share=0.1, key="k")
    assert {unit.number for unit in of if unit.side == "held"} <= choice.held | choice.no_room


@given(MANY)
def test_five_free_documents_always_give_an_eval_set(of: list[Unit]) -> None:
    free = [unit for unit in of if unit.side == "free"]
    choice = choose(free, share=0.1, key="k")
    if sum(unit.size for unit in free) >= 5:
        assert held(choice, free) >= 1


def test_every_label_with_five_documents_is_held_out() -> None:
    of = [Unit(n, f"u{n}", 1, f"label{n % 12}", "free") for n in range(60)]
    choice = choose(of, share=0.1, key="k")
    assert {unit.label for unit in of if unit.number in choice.held} == {f"label{n}" for n in range(12)}


def test_rare_labels_together_are_held_out_too() -> None:
    of = [Unit(n, f"u{n}", 1, f"label{n // 2}", "free") for n in range(30)]
    assert held(choose(of, share=0.1, key="k"), of) == 3


def test_another_key_holds_out_others() -> None:
    of = units(*[1] * 200)
    assert choose(of, share=0.1, key="k").held != choose(of, share=0.1, key="l").held


def test_a_batch_that_is_all_one_cluster_is_split_by_document() -> None:
    choice = choose(units(50), share=0.1, key="k")
    assert (choice.held, choice.by_document) == (set(), {0: 5})


def test_a_large_cluster_trains_and_small_ones_are_held_out() -> None:
    assert 0 not in choose(units(90, *[1] * 30), share=0.1, key="k").held


@given(st.sets(st.tuples(LABELS, st.text("0123456789abcdef", min_size=4, max_size=4)), max_size=40))
def test_halves_are_equal_and_the_odd_one_goes_to_judge(documents: set[tuple[str, str]]) -> None:
    of = [(label, label + digest) for label, digest in documents]
    found = list(halves(of).values())
    assert found.count("judge") - found.count("select") in (0, 1)
    assert halves(of) == halves(reversed(of))
