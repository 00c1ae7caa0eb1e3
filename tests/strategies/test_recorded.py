"""Trajectories of runs that observed nothing themselves: constant weights from the plan, losses from evaluations."""

from __future__ import annotations

from typing import Any

import pytest

from strategies.agent.trajectories import Trajectory
from strategies.contract import Signals
from strategies.planning.recorded import recorded
from tests.strategies.makers import plan, signals, source

BEFORE = {"batch-3": 5.0, "anchor": 3.0, "pool-1": 4.0}
AFTER = {"batch-3": 4.0, "anchor": 3.5, "pool-1": 4.5, "elsewhere": 1.0}


def given() -> Signals:
    """A new batch, an older one whose set is in a pool, one without any set, and an anchor."""
    return signals(
        new=(source("batch-3", 100).model_copy(update={"eval_set": "batch-3", "similarity": 1.0}),),
        old=(source("batch-1", 300, seen_rows=300), source("batch-2", 100, seen_rows=100)),
        anchor=source("anchor", 400).model_copy(update={"eval_set": "anchor", "similarity": 0.25}),
        pools=("pool-1",),
    )


def run(name: str, *, before: dict[str, float] = BEFORE, **settings: Any) -> Trajectory | None:
    return recorded(
        plan(given(), name=name, **settings),
        given(),
        before=before,
        after=AFTER,
        environment="news",
        jobs={"train": {"tokens": 640, "versions": {"torch": "2", "peft": None}}},
        data={"batch-3": "a" * 64},
    )


def weights(found: Trajectory | None) -> dict[str, float]:
    assert found is not None
    return dict(zip(found.names, found.steps[0].weights, strict=True))


def test_replay_weighs_what_it_drew() -> None:
    found = run("rewarm-replay", mixing={"share": 0.2})
    assert weights(found) == pytest.approx({"batch-3": 0.8, "anchor": 0.1, "earlier": 0.1})
    assert found is not None
    assert (found.start, found.steps[0].losses) == ((5.0, 3.0, 4.0), (4.0, 3.5, 4.5))
    assert [one.similarity for one in found.domains if one.name != "earlier"] == [1.0, 0.25]
    assert (found.steps[0].tokens, found.complete) == (640, True)
    assert found.provenance.versions == {"torch": "2"}


def test_what_is_not_replayed_has_weight_0_and_its_losses() -> None:
    found = run("naive")
    assert weights(found) == {"batch-3": 1.0, "anchor": 0.0, "earlier": 0.0}
    assert found is not None
    assert found.steps[0].losses[1] > found.start[1]


def test_training_on_everything_weighs_by_rows() -> None:
    assert weights(run("retrain"))["batch-3"] == pytest.approx(100 / 900)


def test_siblings_that_are_merged_count_once_each() -> None:
    found = run("rewarm-replay", mixing={"share": 0.2}, consolidation="merge")
    assert weights(found)["batch-3"] == pytest.approx(0.8)


def test_a_domain_that_was_not_measured_counts_as_the_others_and_no_measurement_is_no_trajectory() -> None:
    found = run("naive", before={"anchor": 3.0})
    assert found is not None
    assert found.start == (3.0, 3.0, 3.0)
    assert run("naive", before={"elsewhere": 1.0}) is None
