"""Metrics against the golden values, and the identities that hold for any scores."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import ArrayLike

from strategies import metrics
from strategies.errors import BadScores

R = [[0.90, 0.30, 0.20, 0.25], [0.80, 0.85, 0.30, 0.30], [0.70, 0.80, 0.95, 0.35], [0.60, 0.75, 0.90, 0.80]]
INITIAL = [0.25, 0.25, 0.20, 0.25]
JOINT = [0.92, 0.90, 0.96, 0.90]
LABELS, BEFORE, AFTER = [0, 1, 2, 0, 1, 2, 0, 1], [0, 1, 2, 1, 0, 2, 2, 1], [0, 1, 1, 0, 2, 2, 1, 0]

classes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)
matrices = st.integers(2, 6).flatmap(lambda size: arrays.arrays(float, (size, size), elements=st.floats(0, 1)))


@pytest.mark.parametrize(
    ("value", "golden"),
    [
        (metrics.average_performance(R), 0.7625),
        (metrics.last(R), 0.7625),
        (metrics.backward_transfer(R), -0.15),
        (metrics.backward_transfer(R, "all-tasks"), -0.1125),
        (metrics.forward_transfer(R, INITIAL), 0.25 / 3),
        (metrics.forgetting(R), 0.15),
        (metrics.plasticity(R), 0.875),
        (metrics.average_over_time(R), 0.826041666666667),
        (metrics.intransigence(R, JOINT), 0.045),
        (metrics.transfer(R), (0.30 + 0.25 + 0.30) / 3),
        (metrics.average(R), sum(map(sum, R)) / 16),
        (metrics.zero_shot_retention([0.4, 0.5], [0.5, 0.7]), -0.15),
        (metrics.stability_plasticity(R), 2 * 0.85 * 0.875 / 1.725),
    ],
)
def test_metrics_have_their_golden_values(value: float, golden: float) -> None:
    assert value == pytest.approx(golden, abs=1e-12)


def test_forgetting_since_learned_is_reported_by_task() -> None:
    assert metrics.forgetting_by_task(R) == pytest.approx([0.3, 0.1, 0.05])


def test_forgetting_looks_at_every_stage_before_the_last_one_and_may_be_negative() -> None:
    assert metrics.forgetting([[0.5, 0.9], [0.8, 0.4]]) == pytest.approx(-0.3)
    assert metrics.forgetting([[0.5, 0, 0], [0.7, 0.5, 0], [0.6, 0.5, 0.5]]) == pytest.approx(0.05)


def test_losses_are_negated() -> None:
    losses = [[2.0, 3.0], [2.5, 1.0]]
    assert metrics.backward_transfer(metrics.from_losses(losses)) == pytest.approx(-0.5)


def test_flips_have_their_golden_values() -> None:
    flips = metrics.flips(LABELS, BEFORE, AFTER)
    assert (flips.accuracy_before, flips.accuracy_after) == (0.625, 0.5)
    assert (flips.nfr, flips.pfr, flips.nf_mc) == (0.25, 0.125, 0.5)
    assert flips.btc == pytest.approx(0.6)


def test_generation_flips_have_their_golden_values() -> None:
    flips = metrics.generation_flips([0.5, 0.6, 0.2, 0.8], [0.7, 0.5, 0.2, 0.3])
    assert (flips.nfr, flips.pfr) == (0.5, 0.25)
    assert (flips.mean_regression, flips.mean_gain) == pytest.approx((0.3, 0.2))


@given(classes)
def test_accuracy_changes_by_positive_less_negative_flips(rows: list[tuple[int, int, int]]) -> None:
    flips = metrics.flips(*zip(*rows, strict=True))
    assert flips.accuracy_after - flips.accuracy_before == pytest.approx(flips.pfr - flips.nfr, abs=1e-12)
    assert flips.nfr <= flips.nf_mc <= 1 - flips.accuracy_after + 1e-12


@given(classes)
def test_backward_trust_is_what_negative_flips_leave(rows: list[tuple[int, int, int]]) -> None:
    flips = metrics.flips(*zip(*rows, strict=True))
    if flips.btc is None:
        assert flips.accuracy_before == 0
    else:
        assert flips.btc == pytest.approx(1 - flips.nfr / flips.accuracy_before, abs=1e-9)


@given(matrices)
def test_backward_transfer_is_forgetting_since_learned_with_the_other_sign(scores: metrics.Scores) -> None:
    assert metrics.backward_transfer(scores) == pytest.approx(-metrics.forgetting_by_task(scores).mean(), abs=1e-12)
    assert metrics.forgetting(scores) >= -metrics.backward_transfer(scores) - 1e-12


@given(matrices)
def test_the_normalisers_of_backward_transfer_differ_by_one_task(scores: metrics.Scores) -> None:
    tasks = len(scores)
    by_all = metrics.backward_transfer(scores, "all-tasks")
    assert by_all * tasks == pytest.approx(metrics.backward_transfer(scores) * (tasks - 1), abs=1e-12)


Metric = Callable[[ArrayLike], object]
AT_THE_END: tuple[Metric, ...] = (
    metrics.average_performance,
    metrics.average_over_time,
    metrics.backward_transfer,
    metrics.forgetting,
    metrics.forgetting_by_task,
    metrics.average,
    metrics.stability_plasticity,
)
ONCE_LEARNED: tuple[Metric, ...] = (
    metrics.plasticity,
    metrics.stability_plasticity,
    lambda scores: metrics.intransigence(scores, JOINT),
)


@pytest.mark.parametrize(("stage", "touching"), [(3, AT_THE_END), (1, ONCE_LEARNED)])
def test_a_metric_that_touches_an_unevaluated_score_is_refused(stage: int, touching: tuple[Metric, ...]) -> None:
    holes = np.array(R)
    holes[stage, 1] = np.nan
    for metric in touching:
        with pytest.raises(BadScores, match="NaN"):
            metric(holes)


@pytest.mark.parametrize(("after", "before"), [([0.4, np.nan], [0.5, 0.7]), ([0.4, 0.5], [np.nan, 0.7])])
def test_retention_of_an_unevaluated_score_is_refused(after: list[float], before: list[float]) -> None:
    with pytest.raises(BadScores, match="NaN"):
        metrics.zero_shot_retention(after, before)


def test_a_metric_that_does_not_touch_it_is_not() -> None:
    holes = np.array(R)
    holes[np.triu_indices(4, 1)] = np.nan
    assert metrics.backward_transfer(holes) == pytest.approx(-0.15)
    with pytest.raises(BadScores):
        metrics.transfer(holes)
    with pytest.raises(BadScores):
        metrics.forward_transfer(holes, INITIAL)


@pytest.mark.parametrize(
    "ask",
    [
        lambda: metrics.average_performance([[1.0, 2.0]]),
        lambda: metrics.average_performance([]),
        lambda: metrics.backward_transfer([[1.0]]),
        lambda: metrics.forward_transfer(R, [0.1]),
        lambda: metrics.intransigence(R, [np.nan] * 4),
        lambda: metrics.flips([1], [1, 2], [1, 2]),
        lambda: metrics.flips([], [], []),
        lambda: metrics.flips([1.0], [np.nan], [1.0]),
        lambda: metrics.generation_flips([1.0], [np.nan]),
        lambda: metrics.stability_plasticity([[0.0, 0.0], [0.0, 0.0]]),
    ],
)
def test_scores_that_a_metric_is_not_defined_for_are_refused(ask: Callable[[], object]) -> None:
    with pytest.raises(BadScores):
        ask()
