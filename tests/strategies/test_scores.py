"""How much worse a score is: relative for losses, absolute for accuracies."""

from __future__ import annotations

import pytest

from orchestrator.settings import GateSettings
from strategies.scores import Metric, worsening


@pytest.mark.parametrize(
    ("metric", "reference", "value", "worse"),
    [
        ("loss", 2.0, 2.5, 0.25),
        ("loss", 2.0, 1.0, -0.5),
        ("loss", 0.0, 1.0, 0.0),
        ("accuracy", 0.75, 0.5, 0.25),
        ("accuracy", 0.0, 0.5, -0.5),
    ],
)
def test_a_loss_worsens_by_its_relative_rise_and_an_accuracy_by_its_fall(
    metric: Metric, reference: float, value: float, worse: float
) -> None:
    assert worsening(metric, reference, value) == worse


def test_the_gate_has_a_tolerance_for_each_metric_and_each_version_that_it_compares_with() -> None:
    gate = GateSettings(
        tolerance_loss=0.1, tolerance_accuracy=0.2, best_tolerance_loss=0.3, best_tolerance_accuracy=0.4
    )
    assert (gate.tolerance("loss"), gate.tolerance("accuracy")) == (0.1, 0.2)
    assert (gate.tolerance("loss", "best"), gate.tolerance("accuracy", "best")) == (0.3, 0.4)
