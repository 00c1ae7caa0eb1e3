"""The gate on evidence with a known truth."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.policies.evidence import Comparison, Evidence, Role, SetEvidence
from orchestrator.policies.gate import judge
from orchestrator.policies.verdict import GateVerdict, Outcome
from orchestrator.settings import GateSettings
from tests.gate.makers import bounded, classes, compared, flips, losses, new, swapped, verdict

# --- new data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rise", "outcome"), [(-0.05, "pass"), (0.0001, "fail"), (0.05, "fail")])
def test_new_data_must_be_better(rise: float, outcome: Outcome) -> None:
    assert verdict(new(rise, noise=0.0)).outcome == outcome


def test_identical_models_are_no_better_on_new_data() -> None:
    said = verdict(new(0.0, noise=0.0))
    assert said.outcome == "fail"
    assert said.sets[0].changes[0].change == 0
    assert "not better" in said.reason


def test_better_but_uncertain_new_data_is_inconclusive() -> None:
    live = np.full(12, 100.0)
    candidate = live * np.where(np.arange(12) % 2, 0.8, 1.15)
    change = verdict(replace(new(documents=12), live=compared(candidate, live))).sets[0].changes[0]
    _, measured, upper = bounded(change)
    assert measured < 0 < change.limit < upper
    assert change.outcome == "inconclusive"


@settings(max_examples=40, deadline=None)
@given(rise=st.floats(-0.2, 0.2), documents=st.integers(2, 60), seed=st.integers(0, 1000))
def test_of_two_different_models_at_most_one_is_better_than_the_other(rise: float, documents: int, seed: int) -> None:
    one = new(rise, documents, seed=seed)
    there, back = verdict(one).outcome, verdict(swapped(one)).outcome
    assert [there, back].count("fail") == 1


def test_the_batches_of_a_decision_are_judged_as_one_sample() -> None:
    small = [new(-0.05, 4, noise=0.1, seed=seed) for seed in range(12)]
    sets = [replace(one, name=f"batch-{at}") for at, one in enumerate(small)]
    [together] = verdict(*sets).sets
    assert (together.name, together.documents, together.outcome) == ("new data", 48, "pass")
    assert together.members == tuple(f"batch-{at}" for at in range(12))


def test_flips_on_new_data_are_counted_and_not_judged() -> None:
    said = verdict(new(-0.05, noise=0.3))
    assert flips(said).share > 0.1
    assert said.outcome == "pass"


def test_the_margin_for_classes_is_in_points() -> None:
    right = [1] * 60 + [0] * 40
    better = verdict(classes(right, [1] * 70 + [0] * 30, role="new")).sets[0].changes[0]
    assert better.change == pytest.approx(-0.10)
    assert better.outcome == "pass"
    assert verdict(classes(right, right, role="new")).outcome == "fail"


# --- older sets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rise", "documents", "outcome"),
    [
        (0.0, 200, "pass"),
        (0.04, 200, "pass"),
        (0.06, 200, "fail"),
        (0.05, 200, "inconclusive"),
        (0.045, 6, "inconclusive"),
    ],
)
def test_older_sets_must_not_be_worse_than_the_tolerance(rise: float, documents: int, outcome: Outcome) -> None:
    said = verdict(losses(rise=rise, documents=documents), max_flips_loss=1)
    assert said.sets[0].changes[0].outcome == outcome


@pytest.mark.parametrize(("best_rise", "outcome"), [(0.09, "pass"), (0.11, "fail"), (0.10, "inconclusive")])
def test_small_steps_cannot_add_up_to_a_fall(best_rise: float, outcome: Outcome) -> None:
    against_live, against_best = verdict(losses(rise=0.03, best_rise=best_rise), max_flips_loss=1).sets[0].changes
    assert against_live.outcome == "pass"
    assert (against_best.role, against_best.against, against_best.outcome) == ("best", "news/1", outcome)


def test_the_best_version_is_compared_with_on_older_sets_only() -> None:
    assert len(verdict(new(best_rise=0.5)).sets[0].changes) == 1


@pytest.mark.parametrize(("lost", "outcome"), [(0, "pass"), (20, "inconclusive"), (60, "fail")])
def test_accuracy_may_fall_by_points(lost: int, outcome: Outcome) -> None:
    before = [1] * 900 + [0] * 100
    after = [0] * lost + before[lost:]
    change = verdict(classes(before, after)).sets[0].changes[0]
    assert change.outcome == outcome
    assert change.change == pytest.approx(lost / 1000)


def test_losses_are_shared_over_tokens_not_documents() -> None:
    weights = np.array([1000.0, 10, 10, 10])
    live = weights * 3
    one = losses(documents=4)
    candidate = live * np.array([1.0, 2, 2, 2])
    change = verdict(replace(one, weights=weights, live=compared(candidate, live))).sets[0].changes[0]
    assert change.reference == pytest.approx(3)
    assert change.change == pytest.approx(30 / 1030)


@settings(max_examples=25, deadline=None)
@given(rise=st.floats(-0.3, 0.3), documents=st.integers(2, 50), seed=st.integers(0, 100))
def test_bounds_enclose_the_change(rise: float, documents: int, seed: int) -> None:
    change = verdict(losses(rise=rise, documents=documents, seed=seed)).sets[0].changes[0]
    lower, measured, upper = bounded(change)
    assert lower <= measured <= upper


@pytest.mark.parametrize("documents", [5, 10, 40])
def test_a_rise_of_just_the_tolerance_passes_rarely(documents: int) -> None:
    sets = [losses(rise=0.05, documents=documents, noise=0.06, seed=seed) for seed in range(300)]
    outcomes = [verdict(one, max_flips_loss=1, resamples=300).outcome for one in sets]
    assert outcomes.count("pass") / 300 < 0.10
    assert outcomes.count("fail") / 300 < 0.10


# --- flips -------------------------------------------------------------------------------------------------------


def flipped(count: int, documents: int) -> SetEvidence:
    """Losses of which ``count`` documents rise by a fifth and all others fall a little."""
    weights = np.full(documents, 10.0)
    candidate = weights * np.where(np.arange(documents) < count, 3.6, 2.9)
    return replace(losses(documents=documents), weights=weights, live=compared(candidate, weights * 3))


@pytest.mark.parametrize(
    ("count", "documents", "outcome"),
    [
        (0, 50, "pass"),
        (5, 50, "pass"),
        (6, 50, "inconclusive"),
        (12, 50, "fail"),
        (1, 5, "inconclusive"),
        (1, 2, "inconclusive"),
    ],
)
def test_too_many_documents_that_got_worse_fail_if_it_is_no_accident(
    count: int, documents: int, outcome: Outcome
) -> None:
    found = flips(verdict(flipped(count, documents)))
    assert (found.count, found.documents, found.outcome) == (count, documents, outcome)


def test_a_rise_of_exactly_the_limit_is_no_flip() -> None:
    live = np.full(10, 100.0)
    one = replace(losses(documents=10), weights=np.full(10, 8.0), live=compared(live * 1.125, live))
    assert flips(verdict(one, flip_rise=0.125)).count == 0
    assert flips(verdict(one, flip_rise=0.124)).count == 10


def test_classes_flip_when_they_were_right_and_are_wrong() -> None:
    found = flips(verdict(classes([1, 1, 1, 0, 0, 1], [1, 0, 0, 1, 0, 1])))
    assert (found.count, found.limit) == (2, 0.05)
    assert [one.digest for one in found.examples] == ["anchor-000001", "anchor-000002"]
    assert (found.examples[0].before, found.examples[0].after) == (1, 0)


def test_accuracy_that_stays_can_still_fail_by_its_flips() -> None:
    said = verdict(classes([1] * 80 + [0] * 20, [0] * 20 + [1] * 80))
    assert said.sets[0].changes[0].change == 0
    assert flips(said).outcome == said.outcome == "fail"


def test_the_worst_flips_are_shown_five_at_most() -> None:
    rises = np.array([1.5, 1.0, 3.0, 1.2, 2.0, 1.3, 1.9, 1.01])
    weights = np.full(8, 10.0)
    one = replace(losses(documents=8), weights=weights, live=compared(30 * rises, 30 * np.ones(8)))
    examples = flips(verdict(one)).examples
    assert [round(each.after / each.before, 6) for each in examples] == [3.0, 2.0, 1.9, 1.5, 1.3]
    assert examples[0].before == pytest.approx(3)


# --- what cannot be measured -------------------------------------------------------------------------------------


@pytest.mark.parametrize("documents", [0, 1])
@pytest.mark.parametrize("role", ["new", "old"])
def test_fewer_than_two_documents_are_inconclusive(documents: int, role: Role) -> None:
    said = verdict(losses(documents=documents, role=role))
    assert said.outcome == "inconclusive"
    assert f"{documents} documents to judge on" in said.reason


def test_tiny_older_batches_are_judged_together() -> None:
    tiny = [replace(losses(documents=1, kind="batch", seed=seed), name=f"batch-{seed}") for seed in range(30)]
    [together] = verdict(*tiny).sets
    assert (together.name, together.documents, together.outcome) == ("small older sets", 30, "pass")


def test_a_lone_tiny_batch_is_judged_with_the_smallest_of_the_others() -> None:
    sizes = {"batch-1": 1, "batch-2": 4, "batch-3": 40}
    kept = [replace(losses(documents=count, kind="batch"), name=name) for name, count in sizes.items()]
    said = verdict(new(), losses(), *kept)
    assert [one.members for one in said.sets if one.role == "old"] == [
        ("anchor",),
        ("batch-3",),
        ("batch-1", "batch-2"),
    ]
    assert said.outcome == "pass"


def test_a_lone_tiny_batch_without_others_holds_nothing_up() -> None:
    tiny = replace(losses(documents=1, kind="batch"), name="batch-1")
    said = verdict(new(), losses(), tiny)
    assert ([one.name for one in said.sets], said.outcome) == (["batch-3", "anchor"], "pass")


def test_a_candidate_whose_loss_is_no_number_fails() -> None:
    one = losses()
    one.live.candidate[3] = np.nan
    said = verdict(one)
    assert (said.outcome, said.sets[0].changes) == ("fail", ())
    assert "not a number" in said.reason


def test_a_live_version_whose_loss_is_no_number_is_inconclusive() -> None:
    one = losses()
    one.live.reference[3] = np.inf
    assert verdict(one).outcome == "inconclusive"


def test_documents_without_tokens_are_left_out() -> None:
    one = losses(documents=50)
    one.weights[:10] = 0
    assert verdict(one).sets[0].documents == 40


def test_no_eval_set_at_all_is_inconclusive() -> None:
    assert verdict().outcome == "inconclusive"


def test_arrays_that_do_not_fit_are_refused() -> None:
    one = losses(documents=5)
    with pytest.raises(ValueError, match="one value for each of 5"):
        replace(one, weights=np.ones(4))


# --- the whole ---------------------------------------------------------------------------------------------------


def test_a_good_candidate_passes_with_a_reason() -> None:
    said = verdict(new(), losses(), losses("batch-1", kind="batch"))
    assert (said.outcome, said.only_forgot) == ("pass", False)
    assert "2 older eval sets within tolerance" in said.reason


def test_anything_that_fails_fails_the_whole_and_is_named() -> None:
    said = verdict(new(), losses(documents=3, noise=0.2), losses("batch-1", rise=0.2, kind="batch"))
    assert said.outcome == "fail"
    assert said.reason.startswith("batch-1: ")


def test_a_candidate_that_only_forgot_is_marked_for_repair() -> None:
    assert verdict(new(), losses(rise=0.2)).only_forgot
    assert not verdict(new(0.1), losses(rise=0.2)).only_forgot
    assert not verdict(losses(rise=0.2)).only_forgot


def test_new_data_comes_first_and_then_the_anchor() -> None:
    old = [
        losses(name, kind=kind)
        for name, kind in (("pool-1", "pool"), ("batch-1", "batch"), ("faq", "fixed"), ("anchor", "anchor"))
    ]
    said = verdict(*old, new())
    assert [one.name for one in said.sets] == ["batch-3", "anchor", "faq", "batch-1", "pool-1"]


def test_the_verdict_does_not_depend_on_the_order_of_documents_or_on_the_day() -> None:
    one = losses(rise=0.045, documents=30, best_rise=0.1)
    assert one.best is not None
    index = np.random.default_rng(5).permutation(30)
    shuffled = SetEvidence(
        name=one.name, kind=one.kind, role=one.role, metric=one.metric, digests=tuple(one.digests[at] for at in index),
        weights=one.weights[index], live=taken(one.live, index), best=taken(one.best, index),
    )  # fmt: skip
    assert verdict(one) == verdict(one)
    assert verdict(shuffled) == verdict(one)


def taken(comparison: Comparison, index: NDArray[np.int64]) -> Comparison:
    return Comparison(
        version=comparison.version, candidate=comparison.candidate[index], reference=comparison.reference[index]
    )  # fmt: skip


def test_unrestricted_accuracies_are_reported_beside_the_judged_ones() -> None:
    one = classes([1] * 50, [1] * 50)
    live = Comparison(
        version="news/2", candidate=one.live.candidate, reference=one.live.reference, unrestricted=(0.7, 0.9)
    )
    change = verdict(replace(one, live=live)).sets[0].changes[0]
    assert (change.candidate, change.candidate_unrestricted, change.reference_unrestricted) == (1.0, 0.7, 0.9)
    assert change.outcome == "pass"


def test_a_verdict_survives_json() -> None:
    said = verdict(new(noise=0.3), losses(rise=0.2, best_rise=0.3), classes([1, 0], [0, 1], name="faq"))
    text = json.dumps(said.model_dump(mode="json"), allow_nan=False)
    assert GateVerdict.model_validate_json(text) == said


def test_twenty_sets_of_five_hundred_documents_are_judged_quickly() -> None:
    sets = [losses(f"batch-{at}", 500, kind="batch", best_rise=0.01, seed=at) for at in range(20)]
    evidence = Evidence(candidate="news/3", live="news/2", sets=tuple(sets))
    started = time.process_time()
    judge(evidence, GateSettings())
    assert time.process_time() - started < 3
