"""Tables of classes that come in tasks, and of instruction tasks in turn, follow from the results alone."""

from __future__ import annotations

import pytest

from tests.benchmarks import class_tables, reading, sft_tables, strategies_report
from tests.benchmarks.made_results import class_grid, result, sft_grid, stage


def test_class_figures_follow_the_definitions() -> None:
    table = class_tables.class_table(class_grid())
    figures = next(line for line in table.splitlines() if line.startswith("| mos |"))
    assert figures.split("|")[3:6] == [" 90.0% ", " 95.0% ", " 10.0% "]
    assert all(goal.met for goal in class_tables.class_goals(class_grid(), near_joint=True))
    assert not all(goal.met for goal in class_tables.class_goals(class_grid(mos=0.88), near_joint=True))


def test_mos_beats_nobody_by_being_equal() -> None:
    goals = {goal.what: goal for goal in class_tables.class_goals(class_grid(mos=0.7), near_joint=False)}
    assert not goals["final accuracy: mos behind nearest mean"].met
    assert goals["final accuracy: mos behind lora"].met


def test_the_better_joint_training_is_the_upper_bound() -> None:
    grid = class_grid(mos=0.9)
    (joint,) = reading.cells(grid, "joint").values()
    better = {**joint, "cell": {**joint["cell"], "arm": "joint, all weights"}}
    grid["cells"].append({**better, "stages": [stage(2, {"test-0": 0.96, "test-1": 0.96})]})
    assert class_tables.upper_bound(grid) == "joint, all weights"
    (behind,) = (goal for goal in class_tables.class_goals(grid, near_joint=True) if "joint" in goal.what)
    assert behind.measured.mean == pytest.approx(0.06)
    assert not behind.met


def test_a_released_form_that_is_ahead_is_said() -> None:
    assert "behind its released form" not in strategies_report.classes(result(clinc150=class_grid(mos=0.9)))
    assert "`mos` ends 10.0% behind its released form." in strategies_report.classes(
        result(clinc150=class_grid(mos=0.5))
    )


def test_nothing_is_claimed_beside_joint_training_that_is_no_upper_bound() -> None:
    grid = class_grid()
    (joint,) = reading.cells(grid, "joint").values()
    joint["stages"][-1]["scores"] = {"test-0": 0.6, "test-1": 0.6}
    assert not [goal for goal in class_tables.class_goals(grid, near_joint=True) if "joint" in goal.what]
    assert "no upper bound" in strategies_report.classes(result(clinc150=grid))
    assert "no upper bound" not in strategies_report.classes(result(clinc150=class_grid()))


def test_joint_training_has_a_final_accuracy_alone() -> None:
    table = class_tables.class_table(class_grid())
    figures = next(line for line in table.splitlines() if line.startswith("| joint |"))
    assert figures.split("|")[3:6] == [" 94.0% ", "  ", "  "]


def test_transfer_of_losses_is_negative_where_they_rose() -> None:
    table = sft_tables.table(sft_grid())
    figures = next(line for line in table.splitlines() if line.startswith("| naive"))
    assert figures.split("|")[3:5] == [f" {-(4 * 2.0 + 1.0) / 5:.3f} ", " -1.000 "]
    base = next(line for line in table.splitlines() if line.startswith("| base"))
    assert base.split("|")[3:8] == [" -3.000 ", "  ", "  ", "  ", " 3.000 "]
    families = sft_tables.families_table(sft_grid())
    assert "| naive | 1.000 → 2.000 | 1.000 → 2.000 |" in families
    assert families.endswith("| 1.000 → 1.000 |")


def test_arms_that_are_no_better_than_naive_at_their_rate_are_named() -> None:
    grid = sft_grid()
    (cell,) = grid["cells"]
    worse = {**cell, "stages": [*cell["stages"][:-1], stage(6, dict.fromkeys(cell["base"], 2.5))]}
    half = {**cell, "cell": {**cell["cell"], "arm": "half", "rate": 1e-3}}
    grid["cells"].append(half)
    grid["rates"]["half"] = 1e-3
    assert sft_tables.findings(grid) == ""
    assert reading.lacking_references(grid) == "naive was not carried out at 0.001 (for half)"
    grid["references"] = [{**worse, "cell": {**cell["cell"], "rate": 1e-3}}]
    assert sft_tables.findings(grid).startswith("Above naive in OP and BWT: half (naive at the arm's rate;")
    grid["cells"][1] = {**worse, "cell": half["cell"]}
    assert sft_tables.findings(grid).startswith("No better than naive in OP: half; no better than naive in BWT: half (")


def test_what_is_left_of_what_nobody_trains_on_is_said() -> None:
    grid = sft_grid()
    (cell,) = grid["cells"]
    worse = {**reading.end(cell), "general": 3.5}
    grid["cells"].append({**cell, "cell": {"arm": "mos", "seed": 1, "rate": 1e-2}, "stages": [stage(6, worse)] * 6})
    words = sft_tables.findings(grid)
    assert (
        "the base's loss is 3.000; worse than that at the end: mos, most of all mos (3.500), whose fall-back" in words
    )


def test_that_nothing_is_answered_exactly_is_said() -> None:
    grid = sft_grid()
    assert "exactly" not in sft_tables.findings(grid)
    for one in grid["cells"][0]["stages"]:
        one["scores"]["scan:exact"] = 0.0
    assert sft_tables.findings(grid).endswith("No arm answers one row of scan exactly after any stage.")
