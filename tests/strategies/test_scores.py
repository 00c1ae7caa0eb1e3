"""How much worse a score is: relative for losses, absolute for accuracies."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from orchestrator.settings import GateSettings
from strategies.merging.choice import Judged, within
from strategies.scores import Metric, worsening
from tests.gate.makers import compared, losses, verdict


@pytest.mark.parametrize(
    ("metric", "reference", "value", "worse"),
    [
        ("loss", 2.0, 2.5, 0.25),
        ("loss", 2.0, 1.0, -0.5),
        ("loss", 2.0, math.nan, math.inf),
        ("loss", 0.0, 0.0, 0.0),
        ("accuracy", 0.75, 0.5, 0.25),
        ("accuracy", 0.0, 0.5, -0.5),
        ("accuracy", 0.5, math.nan, math.inf),
    ],
)
def test_a_loss_worsens_by_its_relative_rise_and_an_accuracy_by_its_fall(
    metric: Metric, reference: float, value: float, worse: float
) -> None:
    assert worsening(metric, reference, value) == worse


def test_a_loss_that_rises_from_0_is_beyond_every_tolerance_wherever_it_is_asked() -> None:
    worse = worsening("loss", 0.0, 0.5)
    assert 1e9 < worse < math.inf
    one = Judged(name="anchor", metric="loss", role="old", tolerance=0.05)
    assert not within([one], {"anchor": 0.5}, {"anchor": 0.0})
    assert within([one], {"anchor": 0.0}, {"anchor": 0.0})
    none, some = np.zeros(200), np.full(200, 0.5)
    rises = [verdict(replace(losses(), live=compared(now, none))).sets[0].changes[0].change for now in (some, none)]
    assert rises == [pytest.approx(200 * worse), 0.0]


def test_the_gate_has_a_tolerance_for_each_metric_and_each_version_that_it_compares_with() -> None:
    gate = GateSettings(
        tolerance_loss=0.1, tolerance_accuracy=0.2, best_tolerance_loss=0.3, best_tolerance_accuracy=0.4
    )
    assert (gate.tolerance("loss"), gate.tolerance("accuracy")) == (0.1, 0.2)
    assert (gate.tolerance("loss", "best"), gate.tolerance("accuracy", "best")) == (0.3, 0.4)
