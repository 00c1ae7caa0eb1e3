"""The grids' tables follow from the results, and from nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import lineup, plots, report, sft, sft_tables, strategies_report, tables
from tests.benchmarks.domains import ANCHOR, ARMS, DOMAINS
from tests.benchmarks.figures import Goal, Spread, goals_table

SETS = (ANCHOR, *DOMAINS)
ON = {"torch": "2.13.0", "cores": 2}


def stage(number: int, scores: dict[str, float], *, tokens: int = 100, name: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "batches": number,
        "scores": scores,
        "tokens": tokens,
        "cpu_s": {"measure": 1.0, "train": 9.0},
    }


def domain_cell(arm: str, seed: int = 1, *, anchor: float, new: float = 2.0) -> dict[str, Any]:
    """The anchor's loss is ``anchor`` from the first stage on, a domain's ``new`` from its own stage on."""
    stages = [
        stage(
            at + 1,
            {ANCHOR: anchor} | {one: new if place <= at else 5.0 for place, one in enumerate(DOMAINS)},
            name=name,
        )
        for at, name in enumerate(DOMAINS)
    ]
    return {"cell": {"arm": arm, "seed": seed, "rate": 3e-4}, "base": dict.fromkeys(SETS, 4.0), "stages": stages}


def domain_grid(*, replay: float = 4.1) -> dict[str, Any]:
    at = {"naive": 6.0, "replay": replay, "half": 5.6, "half, replay": 4.05, "replay 5 %": 5.1, "replay 25 %": 4.6}
    found = [domain_cell(arm.name, anchor=at.get(arm.name, 4.05)) for arm in ARMS]
    found.append(domain_cell("naive", 2, anchor=7.0))
    return {"cells": found, "references": [], "rates": {arm.name: 3e-4 for arm in ARMS}}


def year_cell(arm: str, loss: float, *, tokens: int, every: int = 1) -> dict[str, Any]:
    sets = (ANCHOR, "1993", "1994", "1995")
    stages = [
        stage(at, dict.fromkeys(sets, loss) if at in (2, 3) else {}, tokens=tokens) for at in (1, 2, 3) if at >= every
    ]
    return {"cell": {"arm": arm, "seed": 1, "rate": 3e-4}, "base": dict.fromkeys(sets, 4.0), "stages": stages}


def year_grid() -> dict[str, Any]:
    found = [year_cell(arm.name, 2.0, tokens=10) for arm in ARMS if arm.name != "retrain"]
    found.append(year_cell("retrain", 1.99, tokens=60, every=2))
    return {"cells": found, "references": [], "rates": {arm.name: 3e-4 for arm in ARMS}}


def class_grid(mos: float = 0.9) -> dict[str, Any]:
    at = {"lora": 0.4, "lora, replay": 0.8, "nearest mean": 0.7, "mos": mos, "mos, released": 0.6}
    found = [
        {
            "cell": {"arm": arm, "seed": 1, "rate": 3e-4},
            "base": {},
            "stages": [stage(1, {"test-0": 1.0}), stage(2, {"test-0": end, "test-1": end})],
        }
        for arm, end in at.items()
    ]
    joint = {
        "cell": {"arm": "joint", "seed": 1, "rate": 1e-3},
        "base": {},
        "stages": [stage(2, {"test-0": 0.94, "test-1": 0.94})],
    }
    return {"cells": [*found, joint], "rates": dict.fromkeys([*at, "joint"], 1e-3)}


def sft_grid() -> dict[str, Any]:
    names = (*sft.FAMILIES, sft.GENERAL)
    stages = [
        stage(at + 1, {one: 1.0 if place == at else 2.0 for place, one in enumerate(names)} | {"scan:exact": 0.25})
        for at in range(len(sft.FAMILIES))
    ]
    cell = {"cell": {"arm": "naive", "seed": 1}, "base": dict.fromkeys(names, 3.0), "stages": stages}
    return {"cells": [cell], "rates": {"naive": 3e-4}}


def result(**grids: Any) -> dict[str, Any]:
    preset = {
        "name": "quick",
        "tokens": 10,
        "year_tokens": 5,
        "domains": DOMAINS,
        "seeds": [1],
        "examples": 10,
        "epochs": 2.0,
    }
    return {"preset": preset, "machine": ON, "commit": "abc", "side_by_side_s": 60.0, **grids}


def by_what(goals: list[Goal]) -> dict[str, Goal]:
    return {goal.what: goal for goal in goals}


def test_replays_share_of_naives_forgetting_is_of_the_same_seed() -> None:
    goal = by_what(tables.domain_goals(domain_grid()))["anchor's rise after novels-de: replay's share of naive's"]
    assert goal.measured.values == pytest.approx((0.05,))
    assert goal.met


def test_half_is_held_to_a_tenth_less_than_naive() -> None:
    goal = by_what(tables.domain_goals(domain_grid()))["anchor's rise at the end: half's share of naive's"]
    assert goal.measured.mean == pytest.approx(0.8)


def test_auto_is_held_to_the_best_single_choice_but_not_to_retraining() -> None:
    grid = domain_grid()
    (goal,) = tables.auto_goal(grid)
    assert "(half, replay)" in goal.what
    assert goal.measured.mean == pytest.approx(0.0)


def test_an_arm_is_held_to_naive_at_its_own_rate() -> None:
    grid = domain_grid()
    for cell in tables.cells(grid, "half").values():
        cell["cell"]["rate"] = 1e-3
    beside = domain_cell("naive", anchor=8.0)
    beside["cell"]["rate"] = 1e-3
    goals = {goal.what: goal for goal in tables.domain_goals({**grid, "references": [beside]})}
    measured = goals["anchor's rise at the end: half's share of naive's"].measured
    assert measured.mean == pytest.approx((5.6 / 4 - 1) / (8.0 / 4 - 1))


def test_a_part_of_a_grid_has_a_report_and_a_plot_of_its_own(tmp_path: Path) -> None:
    grid = domain_grid()
    some = {**grid, "cells": [cell for cell in grid["cells"] if cell["cell"]["arm"] in ("naive", "replay")]}
    found = result(domains=some)
    assert "half's share" not in strategies_report.domains(found)
    plots.domain_losses(found, tmp_path / "domains.png")
    assert [path.name for path in tmp_path.iterdir()] == ["domains.png"]


def test_forgetting_is_above_the_least_since_the_domains_own_stage() -> None:
    cell = domain_cell("naive", anchor=6.0)
    cell["stages"][-1]["scores"][DOMAINS[0]] = 3.0
    grid = {"cells": [cell], "rates": {"naive": 1e-3}}
    first = next(line for line in tables.forgetting_table(grid).splitlines() if line.startswith("| naive"))
    assert first.split("|")[2:4] == [" 2.000 ", " 1.000 "]


def test_a_missed_goal_is_said() -> None:
    text = goals_table(tables.domain_goals(domain_grid(replay=5.0)))
    assert "Missed: anchor's rise after novels-de: replay's share of naive's" in text
    assert "No goal was missed." in goals_table([Goal(what="x", measured=Spread(values=(0.0,)), limit=0.0)])


def test_where_naive_forgets_nothing_no_share_of_it_is_claimed() -> None:
    grid = domain_grid()
    for cell in grid["cells"]:
        for one in cell["stages"]:
            one["scores"][ANCHOR] = 3.9
    text = goals_table(tables.domain_goals(grid))
    assert "| anchor's rise after novels-de: replay's share of naive's | nothing was forgotten | ≤ 10.0% |  |" in text
    assert "No goal was missed." in text


def test_years_are_compared_where_retraining_is_due() -> None:
    goals = list(by_what(tables.temporal_goals(year_grid())).values())
    assert goals[0].measured.mean == pytest.approx(2.0 / 1.99 - 1)
    assert goals[1].measured.mean == pytest.approx(30 / 120)
    assert "| year 2 | year 3 |" in tables.temporal_table(year_grid())


def test_years_are_forgotten_from_when_they_were_scored_first() -> None:
    grid = year_grid()
    for cell in grid["cells"]:
        cell["stages"][-1]["scores"] = {ANCHOR: 4.5, "1993": 2.5, "1994": 2.25, "1995": 1.0}
    table = tables.years_forgotten_table(grid)
    assert table.startswith(f"| arm | {ANCHOR} | 1993 to 1994 |")
    row = next(line for line in table.splitlines() if line.startswith("| naive"))
    assert row.split("|")[2:4] == [" 2.500 ", " 0.375 "]


def test_class_figures_follow_the_definitions() -> None:
    row = next(line for line in tables.class_table(class_grid()).splitlines() if line.startswith("| mos |"))
    assert row.split("|")[3:6] == [" 90.0% ", " 95.0% ", " 10.0% "]
    assert all(goal.met for goal in tables.class_goals(class_grid(), near_joint=True))
    assert not all(goal.met for goal in tables.class_goals(class_grid(mos=0.88), near_joint=True))


def test_the_better_joint_training_is_the_upper_bound() -> None:
    grid = class_grid(mos=0.9)
    (joint,) = tables.cells(grid, "joint").values()
    better = {**joint, "cell": {**joint["cell"], "arm": "joint, all weights"}}
    grid["cells"].append({**better, "stages": [stage(2, {"test-0": 0.96, "test-1": 0.96})]})
    assert tables.upper_bound(grid) == "joint, all weights"
    (behind,) = (goal for goal in tables.class_goals(grid, near_joint=True) if "joint" in goal.what)
    assert behind.measured.mean == pytest.approx(0.06)
    assert not behind.met


def test_a_released_form_that_is_ahead_is_said() -> None:
    assert "behind its released form" not in strategies_report.classes(result(clinc150=class_grid(mos=0.9)))
    assert "`mos` ends 10.0% behind its released form." in strategies_report.classes(
        result(clinc150=class_grid(mos=0.5))
    )


def test_nothing_is_claimed_beside_joint_training_that_is_no_upper_bound() -> None:
    grid = class_grid()
    (joint,) = tables.cells(grid, "joint").values()
    joint["stages"][-1]["scores"] = {"test-0": 0.6, "test-1": 0.6}
    assert not [goal for goal in tables.class_goals(grid, near_joint=True) if "joint" in goal.what]
    assert "no upper bound" in strategies_report.classes(result(clinc150=grid))
    assert "no upper bound" not in strategies_report.classes(result(clinc150=class_grid()))


def test_joint_training_has_a_final_accuracy_alone() -> None:
    row = next(line for line in tables.class_table(class_grid()).splitlines() if line.startswith("| joint |"))
    assert row.split("|")[3:6] == [" 94.0% ", "  ", "  "]


def test_transfer_of_losses_is_negative_where_they_rose() -> None:
    row = next(line for line in sft_tables.table(sft_grid()).splitlines() if line.startswith("| naive"))
    assert row.split("|")[3:5] == [f" {-(4 * 2.0 + 1.0) / 5:.3f} ", " -1.000 "]
    families = sft_tables.families_table(sft_grid())
    assert "| naive | 1.000 → 2.000 | 1.000 → 2.000 |" in families
    assert families.endswith("| 1.000 → 1.000 |")


def test_arms_that_are_no_better_than_naive_are_named() -> None:
    grid = sft_grid()
    (cell,) = grid["cells"]
    assert sft_tables.findings(grid) == "Every arm is above naive in OP and BWT."
    grid["cells"].append({**cell, "cell": {"arm": "half", "seed": 1}})
    assert sft_tables.findings(grid) == "No better than naive in OP: half; no better than naive in BWT: half."


def test_the_rate_is_the_best_on_select_of_the_arms_own() -> None:
    tuned = [
        {"cell": {"arm": "a", "rate": 1e-4}, "select": 3.0},
        {"cell": {"arm": "a", "rate": 1e-3}, "select": 2.0},
        {"cell": {"arm": "b", "rate": 1e-4}, "select": 1.0},
        {"cell": {"arm": "c", "rate": 2e-3}, "select": 0.6888888888888888},
        {"cell": {"arm": "c", "rate": 1e-3}, "select": 0.688888888888889},
    ]
    assert [lineup.best_rate(tuned, arm) for arm in "abc"] == [1e-3, 1e-4, 1e-3]


def test_every_grid_has_a_report_and_a_plot(tmp_path: Path) -> None:
    found = {
        "domains": result(domains=domain_grid(), temporal=year_grid()),
        "classes": result(clinc150=class_grid(), banking77=class_grid()),
        "sft": result(families=sft_grid()),
    }
    chapters = {one.name: one for one in report.GRIDS if one.name != "main_job"}
    assert set(found) == set(chapters)
    for name, one in chapters.items():
        assert "Preset `quick`" in one.words(found[name])
        assert one.draw is not None
        one.draw(found[name], tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    assert (tmp_path / "domains-years.png").exists()


def test_halves_are_compared_at_one_rate_alone() -> None:
    grid = domain_grid()
    assert any("half with replay less replay" in goal.what for goal in tables.domain_goals(grid))
    grid["rates"]["half, replay"] = 1e-3
    assert not any("half with replay less replay" in goal.what for goal in tables.domain_goals(grid))


def test_a_report_names_every_commit_that_made_a_cell() -> None:
    grid = sft_grid()
    assert "commit `abc`" in strategies_report.sft(result(families=grid))
    grid["cells"] = [{**grid["cells"][0], "commit": commit} for commit in ("b1", "a2", "b1")]
    assert "commits `a2`, `b1`" in strategies_report.sft(result(families=grid))


def test_a_report_says_what_has_not_been_carried_out() -> None:
    grid = sft_grid()
    assert "Not carried out" not in strategies_report.sft(result(families=grid))
    grid["missing"] = [["mos", 1], ["half", 2], ["mos", 2], ["replay", 2]]
    said = strategies_report.sft(result(families=grid))
    assert "Not carried out: families: mos (seeds 1, 2); half | replay (seed 2)." in said


def test_auto_is_compared_with_each_choice_over_the_seeds_of_both() -> None:
    """The choice that only the first seed has is no better for the others' harder seeds."""
    grid = domain_grid()
    grid["cells"] += [domain_cell("auto", 2, anchor=8.0), domain_cell("replay", 2, anchor=8.0)]
    (goal,) = tables.auto_goal(grid)
    assert goal.measured.mean == pytest.approx(0.0)
    apart = [domain_cell("auto", 1, anchor=4.0), domain_cell("replay", 2, anchor=4.0)]
    assert tables.auto_goal({**grid, "cells": apart}) == []


def test_lines_of_one_point_are_drawn_at_the_end(tmp_path: Path) -> None:
    plots.draw({"set": {"joint": [[0.9]], "lora": [[1.0, 0.5]]}}, tmp_path / "x.png", x=["1", "2"], ylabel="accuracy")
    assert (tmp_path / "x.png").exists()


def half(step: float, memory: float) -> dict[str, Any]:
    return {
        "step_ratio": {"median": step, "low": step, "high": step},
        "step_bound": 0.9,
        "optimizer_ratio": memory,
        "trainable_share": 0.6,
    }


def test_the_agent_stands_beside_the_best_constant_mixture(tmp_path: Path) -> None:
    rows = [
        {"policy": name, "fall": fall, "fall_deviation": 0.01, "old_loss": 3.0, "new_loss": 4.0}
        for name, fall in (("uniform", 1.5), ("agent", 1.25))
    ]
    found = {
        "world": {"sources": ["a"], "targets": ["b"]},
        "rows": rows,
        "guard": "uniform",
        "agent_minus_guard": -0.25,
        "wins": 0,
        "facts": {"tokens_a_run": 1000, "seeds": [1, 2, 3]},
    }
    measured = {"agent": {"lessons": {"trajectories": 96}}, "held_out": {"a-to-b": found}}
    table = tables.mixing_agent_table(measured)
    assert "(uniform), its fall is -0.250, the greater one in 0 of 3 runs." in table
    assert "| agent | 1.250 ± 0.010 | 3.0000 | 4.0000 |" in table
    plots.mixing_agent(measured, tmp_path / "x.png")
    assert (tmp_path / "x.png").is_file()


def test_half_costs_stand_beside_what_was_promised(tmp_path: Path) -> None:
    measured = {"sizes": {"cpu": {"5M": {"parameters": 5_000_000, "arms": {"half": half(0.91, 0.6)}}}, "gpu": {}}}
    assert "| cpu, 5 M | half | 0.910 (0.910 to 0.910) | 0.900 | 0.600 | 0.620 |" in tables.half_cost_table(measured)
    plots.half_cost(measured, tmp_path / "x.png")
    assert (tmp_path / "x.png").is_file()


def test_of_a_smaller_preset_the_parts_are_shown_that_the_larger_one_lacks(tmp_path: Path) -> None:
    chapter = report.Chapter(name="grid", title="A grid", words=str, parts=("one", "two"))
    (tmp_path / "grid-standard.json").write_text(json.dumps({"one": 1}))
    (tmp_path / "grid-quick.json").write_text(json.dumps({"one": 2, "two": 3}))
    assert [found for _, found in report.largest(chapter, tmp_path)] == [{"one": 1}, {"two": 3}]
    (tmp_path / "grid-standard.json").write_text(json.dumps({"one": 1, "two": 4}))
    assert [found for _, found in report.largest(chapter, tmp_path)] == [{"one": 1, "two": 4}]
