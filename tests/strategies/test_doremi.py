"""DoReMi's weights: golden values, absent domains, and the average that is the result."""

from __future__ import annotations

import json
import math

import pytest

from strategies.errors import BadPlan, BadState
from strategies.mixing.doremi import DoReMi, step

ALPHA = {"x": 0.5, "y": 0.3, "z": 0.2}


def adversary_of(prior: dict[str, float], *, smoothing: float = 1e-3) -> DoReMi:
    return DoReMi(prior, eta=1.0, smoothing=smoothing)


def test_the_update_has_its_golden_value_when_excess_is_clipped() -> None:
    found = step(ALPHA, {"x": 0.2, "y": 0.0, "z": 0.7}, eta=1, smoothing=1e-3)
    assert list(found.values()) == pytest.approx([0.464827, 0.228511, 0.306662], abs=5e-7)


def test_the_update_itself_clips_nothing() -> None:
    found = step(ALPHA, {"x": 0.2, "y": -0.1, "z": 0.7}, eta=1, smoothing=1e-3)
    assert list(found.values()) == pytest.approx([0.475148, 0.211384, 0.313468], abs=5e-7)


def test_smoothing_keeps_every_domain_alive() -> None:
    adversary = adversary_of(ALPHA, smoothing=0.03)
    for _ in range(500):
        adversary.update({"x": 5.0, "y": 0.0, "z": 0.0})
    assert min(adversary.alpha.values()) >= 0.01
    assert sum(adversary.alpha.values()) == pytest.approx(1)


def test_an_absent_domain_keeps_the_excess_it_last_had() -> None:
    one, other = adversary_of(ALPHA), adversary_of(ALPHA)
    one.update({"x": 0.2, "y": 0.0, "z": 0.7})
    other.update({"x": 0.2, "y": 0.0, "z": 0.7})
    assert one.update({"x": 0.1}) == other.update({"x": 0.1, "y": 0.0, "z": 0.7})


def test_an_excess_that_is_not_finite_counts_as_absent() -> None:
    adversary = adversary_of(ALPHA)
    assert all(math.isfinite(weight) for weight in adversary.update({"x": math.nan, "z": math.inf}).values())


def test_the_result_is_the_average_over_all_steps_and_not_the_last_weights() -> None:
    adversary = adversary_of(ALPHA)
    assert adversary.average() == pytest.approx(ALPHA)
    seen = [adversary.update({"x": excess, "y": 0.0, "z": 0.0}) for excess in (0.5, 1.0, 0.0)]
    mean = sum(alpha["x"] for alpha in seen) / 3
    assert adversary.average()["x"] == pytest.approx(mean)
    assert adversary.average()["x"] != pytest.approx(adversary.alpha["x"], abs=1e-3)


def test_weights_go_on_exactly_after_a_restart() -> None:
    first, second = adversary_of(ALPHA), adversary_of(ALPHA)
    first.update({"x": 0.3, "y": 0.1})
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.update({"z": 0.2}) == first.update({"z": 0.2})
    assert second.average() == first.average()


def test_domains_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadPlan, match="weight 0"):
        adversary_of({"x": 1.0, "y": 0.0})
    with pytest.raises(BadState, match="other domains"):
        adversary_of(ALPHA).load_state_dict(adversary_of({"x": 1.0}).state_dict())
