"""Learning-rate schedules: published formulae, golden values, continuity."""

import math
from itertools import pairwise
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.errors import BadPlan
from strategies.parts import CosineSchedule, InfiniteSchedule, Schedule
from strategies.schedule import factor, rate

COSINE = CosineSchedule(steps=1000, warmup=10, lr=3e-4, min_lr=3e-5)
INFINITE = InfiniteSchedule(
    warmup=10, cooldown=600, constant=250, anneal=140, lr=3e-4, constant_lr=1.65e-4, min_lr=3e-5
)  # fmt: skip
Style = Literal["cosine", "rsqrt", "linear"]
STYLES: tuple[Style, ...] = ("cosine", "rsqrt", "linear")


@pytest.mark.parametrize(
    ("step", "golden"),
    [
        (1, "3.000000e-05"), (5, "1.500000e-04"), (10, "3.000000e-04"), (100, "2.945316e-04"),
        (250, "2.627041e-04"), (505, "1.650000e-04"), (750, "7.030089e-05"), (1000, "3.000000e-05"),
    ],
)  # fmt: skip
def test_cosine_has_its_golden_values(step: int, golden: str) -> None:
    assert f"{rate(COSINE, step):.6e}" == golden


@pytest.mark.parametrize(
    ("step", "cosine", "rsqrt"),
    [
        (10, "3.000000e-04", "3.000000e-04"), (160, "2.802297e-04", "2.100351e-04"),
        (310, "2.325000e-04", "1.856295e-04"), (460, "1.847703e-04", "1.730181e-04"),
        (610, "1.650000e-04", "1.650000e-04"), (860, "1.650000e-04", "1.650000e-04"),
        (930, "7.035624e-05", "7.035624e-05"), (1000, "3.000000e-05", "3.000000e-05"),
    ],
)  # fmt: skip
def test_infinite_has_its_golden_values(step: int, cosine: str, rsqrt: str) -> None:
    assert f"{rate(INFINITE, step):.6e}" == cosine
    assert f"{rate(INFINITE.model_copy(update={'style': 'rsqrt'}), step):.6e}" == rsqrt


@pytest.mark.parametrize("step", range(1, 1001, 37))
def test_cosine_equals_the_half_angle_form(step: int) -> None:
    decayed = 3e-5 + 2.7e-4 * math.cos(math.pi / 2 * (step - 10) / 990) ** 2
    expected = 3e-4 * step / 10 if step <= 10 else decayed
    assert rate(COSINE, step) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("step", range(11, 611, 41))
def test_a_cooldown_equals_its_closed_form(style: Style, step: int) -> None:
    share = (step - 10) / 600
    progress = {
        "cosine": math.sin(math.pi / 2 * share) ** 2,
        "linear": share,
        "rsqrt": (1 - (1 + 10 * share) ** -0.5) / (1 - 11**-0.5),
    }[style]
    expected = 3e-4 - (3e-4 - 1.65e-4) * progress
    assert rate(INFINITE.model_copy(update={"style": style}), step) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("step", range(861, 1001, 13))
def test_the_anneal_is_exponential(step: int) -> None:
    expected = math.exp(math.log(1.65e-4) + (step - 860) / 140 * math.log(3e-5 / 1.65e-4))
    assert rate(INFINITE, step) == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("schedule", [COSINE, *(INFINITE.model_copy(update={"style": style}) for style in STYLES)])
def test_warm_up_is_a_straight_line_from_zero_to_the_peak(schedule: Schedule) -> None:
    rates = [rate(schedule, step) for step in range(1, 11)]
    assert rates == pytest.approx([3e-4 * step / 10 for step in range(1, 11)], abs=1e-10)
    assert all(abs(after - before) <= 3e-5 * (1 + 1e-9) for before, after in pairwise(rates))


def test_the_factor_is_the_rate_over_the_peak() -> None:
    assert factor(COSINE, 505) == pytest.approx(0.55, abs=1e-12)


@pytest.mark.parametrize("style", STYLES)
def test_no_step_of_an_infinite_schedule_is_steeper_than_its_steepest_phase(style: Style) -> None:
    schedule = INFINITE.model_copy(update={"style": style})
    rates = [rate(schedule, step) for step in range(1, 1001)]
    for start, end in ((10, 610), (610, 860), (860, 1000)):
        steepest = _max_slope(schedule, start, end)
        steps = range(start, end)
        assert all(abs(rates[step] - rates[step - 1]) <= steepest * (1 + 1e-9) for step in steps)


def _max_slope(schedule: InfiniteSchedule, start: int, end: int) -> float:
    if start == 610:
        return 0.0
    drop = schedule.lr - schedule.constant_lr
    if start == 860:
        return schedule.constant_lr * math.log(schedule.constant_lr / schedule.min_lr) / (end - start)
    steepest = {"cosine": math.pi / 2, "linear": 1.0, "rsqrt": 5 / (1 - 11**-0.5)}[schedule.style]
    return drop * steepest / (end - start)


def test_the_cosine_is_continuous_at_the_end_of_warmup_and_of_the_stage() -> None:
    slope = math.pi / 2 * (3e-4 - 3e-5) / 990
    rates = [rate(COSINE, step) for step in range(10, 1003)]
    assert all(abs(after - before) <= slope for before, after in pairwise(rates))


@pytest.mark.parametrize("schedule", [COSINE, INFINITE])
def test_steps_out_of_range_are_clamped_and_never_wrap(schedule: Schedule) -> None:
    assert rate(schedule, 0) == rate(schedule, 1) > 0
    assert rate(schedule, 1001) == rate(schedule, 2000) == pytest.approx(3e-5, abs=1e-15)


def test_a_trunk_without_anneal_stays_at_its_constant_rate() -> None:
    trunk = INFINITE.model_copy(update={"anneal": 0})
    assert rate(trunk, 861) == rate(trunk, 10_000) == 1.65e-4


def test_phases_of_no_length_are_left_out() -> None:
    phases = {"warmup": 0, "cooldown": 0, "constant": 0}
    release = INFINITE.model_copy(update=phases)
    assert rate(release, 70) == pytest.approx(math.sqrt(1.65e-4 * 3e-5), abs=1e-12)
    trunk = INFINITE.model_copy(update={**phases, "constant": 5, "anneal": 0})
    assert [rate(trunk, step) for step in range(1, 6)] == [1.65e-4] * 5


def test_without_warmup_the_cosine_starts_at_the_peak() -> None:
    cold = COSINE.model_copy(update={"warmup": 0})
    assert 0.999 < factor(cold, 1) < 1


@pytest.mark.parametrize(("start", "golden"), [("zero", 1.5e-4), ("eta_min", 1.65e-4), ("last_lr", 2e-4)])
def test_rewarming_begins_where_it_is_told(start: str, golden: float) -> None:
    schedule = COSINE.model_copy(update={"warmup_start": start, "last_lr": 1e-4})
    assert rate(schedule, 5) == pytest.approx(golden, abs=1e-12)
    assert rate(schedule, 10) == pytest.approx(3e-4, abs=1e-12)


def test_rewarming_from_an_unknown_rate_is_refused() -> None:
    with pytest.raises(BadPlan, match="last_lr"):
        rate(COSINE.model_copy(update={"warmup_start": "last_lr"}), 1)


lengths = st.integers(0, 40)


@given(lengths, lengths, lengths, lengths, st.sampled_from(STYLES), st.integers(-3, 200))
def test_no_rate_of_an_infinite_schedule_leaves_its_bounds(
    warmup: int, cooldown: int, constant: int, anneal: int, style: Style, step: int
) -> None:
    schedule = InfiniteSchedule(
        warmup=warmup, cooldown=cooldown, constant=constant, anneal=anneal, style=style,
        lr=3e-4, constant_lr=1.65e-4, min_lr=3e-5,
    )  # fmt: skip
    assert 3e-5 <= rate(schedule, step) <= 3e-4 * (1 + 1e-12)
