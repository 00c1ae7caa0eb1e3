"""Skill-It's weights: golden values, the window, and the graph from edge tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from strategies.errors import BadPlan
from strategies.mixing.simplex import Weights
from strategies.mixing.skill_it import Graph, SkillIt, edges, identity, weights
from strategies.parts import SkillItReweighting

GRAPH: Graph = {"x": {"x": 1, "y": 0.5}, "y": {"y": 1, "z": 0.5}, "z": {"z": 1}}
LOSSES: list[list[float]] = [[2, 1.5, 1], [1.8, 1.4, 1], [1.5, 1.3, 0.9]]
GOLDEN = {"x": 0.656917, "y": 0.273844, "z": 0.069239}
UNIFORM = dict.fromkeys("xyz", 1.0)


def losses(row: Sequence[float]) -> dict[str, float]:
    return dict(zip("xyz", row, strict=True))


def skill_it(initial: Weights = UNIFORM, **changes: Any) -> SkillIt:
    return SkillIt(SkillItReweighting(**{"eta": 0.5, "window": 3, "graph": GRAPH, **changes}), initial)


def test_the_update_has_its_golden_value() -> None:
    assert weights(UNIFORM, GRAPH, [losses(row) for row in LOSSES], 0.5) == pytest.approx(GOLDEN, abs=5e-7)


def test_three_evaluations_one_after_the_other_have_the_golden_value() -> None:
    policy, found = skill_it(), UNIFORM
    for step, row in enumerate(LOSSES, 1):
        found = policy.update(step, found, losses(row))
    assert found == pytest.approx(GOLDEN, abs=5e-7)


def test_the_initial_weights_are_multiplied_and_never_the_last_ones() -> None:
    policy = skill_it(window=1)
    first = policy.update(1, UNIFORM, losses(LOSSES[0]))
    assert policy.update(2, first, losses(LOSSES[0])) == first


def test_initial_weights_scale_the_result() -> None:
    plain, weighted = skill_it(), skill_it({"x": 2.0, "y": 1.0, "z": 0.0})
    found, twice = (policy.update(1, UNIFORM, losses(LOSSES[0])) for policy in (plain, weighted))
    assert twice["x"] / twice["y"] == pytest.approx(2 * found["x"] / found["y"])
    assert twice["z"] == 0


def test_only_the_last_three_evaluations_count() -> None:
    policy, course = skill_it(), [[9.0, 1.0, 7.0], *LOSSES]
    for step, row in enumerate(course, 1):
        found = policy.update(step, UNIFORM, losses(row))
    assert found == pytest.approx(GOLDEN, abs=5e-7)


def test_before_anything_was_trained_losses_count_as_one() -> None:
    found = skill_it().update(0, UNIFORM, losses([40, 1, 1]))
    assert found == pytest.approx(weights(UNIFORM, GRAPH, [dict.fromkeys("xyz", 1.0)], 0.5))
    assert found["x"] == found["y"] > found["z"]


def test_the_first_round_is_not_part_of_the_window() -> None:
    policy = skill_it()
    policy.update(0, UNIFORM, losses([40, 1, 1]))
    for step, row in enumerate(LOSSES, 1):
        found = policy.update(step, UNIFORM, losses(row))
    assert found == pytest.approx(GOLDEN, abs=5e-7)


def test_target_skills_alone_count_by_their_mean_loss() -> None:
    graph = {"x": {"t": 1.0}, "y": {"t": 1.0, "u": 1.0}, "z": {}}
    found = skill_it(graph=graph, mean_loss=True).update(1, UNIFORM, {"t": 1.0, "u": 3.0})
    assert found == pytest.approx(weights(UNIFORM, graph, [{"t": 2.0, "u": 2.0}], 0.5))


def test_great_losses_overflow_nothing() -> None:
    found = weights(UNIFORM, identity("xyz"), [losses([5000.0, 1.0, 1.0])], 1.0)
    assert found == {"x": 1.0, "y": 0.0, "z": 0.0}


def test_an_update_after_a_restart_is_the_same() -> None:
    first, second = skill_it(), skill_it()
    for step, row in enumerate(LOSSES[:2], 1):
        first.update(step, UNIFORM, losses(row))
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.update(3, UNIFORM, losses(LOSSES[2])) == first.update(3, UNIFORM, losses(LOSSES[2]))


def test_an_edge_is_where_training_together_ends_lower() -> None:
    alone = {"x": 2.0, "y": 1.0}
    together = {"x": {"y": 0.8}, "y": {"x": 2.1}}
    assert edges(alone, together) == {"x": {"x": 1.0, "y": 0.5}, "y": {"y": 1.0}}
    assert edges(alone, together, weight=None)["x"]["y"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("graph", "reason"), [({"w": {"x": 1}}, "no domain"), ({}, "no edge"), ({"x": {"t": 1}}, "no loss")]
)
def test_a_graph_that_does_not_fit_is_refused(graph: Graph, reason: str) -> None:
    with pytest.raises(BadPlan, match=reason):
        skill_it(graph=graph).update(1, UNIFORM, losses(LOSSES[0]))
