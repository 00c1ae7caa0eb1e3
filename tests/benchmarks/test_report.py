"""What stands in the report apart from the grids' tables: rates, costs of half fine-tuning, a mixing agent, plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import (
    classes,
    domains,
    half_cost_tables,
    lineup,
    main_job,
    mixing_agent_tables,
    plots,
    report,
    sft,
    strategies_report,
)
from tests.benchmarks.domains import ARMS
from tests.benchmarks.made_results import class_grid, domain_grid, result, sft_grid, year_cell, year_grid


def test_the_rate_is_the_best_on_select_of_the_arms_own() -> None:
    tuned: list[dict[str, Any]] = [
        {"cell": {"arm": "a", "rate": 1e-4}, "select": 3.0},
        {"cell": {"arm": "a", "rate": 1e-3}, "select": 2.0},
        {"cell": {"arm": "a", "rate": 1e-2}, "failed": "it diverged"},
        {"cell": {"arm": "b", "rate": 1e-4}, "select": 1.0},
        {"cell": {"arm": "c", "rate": 2e-3}, "select": 0.6888888888888888},
        {"cell": {"arm": "c", "rate": 1e-3}, "select": 0.688888888888889},
    ]
    assert [lineup.best_rate(tuned, arm) for arm in "abc"] == [1e-3, 1e-4, 1e-3]


def test_every_grid_has_a_report_and_a_plot(tmp_path: Path) -> None:
    found = {
        "domains": result(domains=domain_grid(), temporal=year_grid(), reordered=domain_grid()),
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
    assert (tmp_path / "domains-reordered.png").exists()


def test_of_the_reordered_domains_auto_is_what_is_judged() -> None:
    grid = domain_grid()
    some = {**grid, "cells": [cell for cell in grid["cells"] if cell["cell"]["arm"] in ("replay", "auto")]}
    said = strategies_report.domains(result(reordered=some))
    assert "reordered: 2 of 7 arms, 1 of 1 seed." in said
    assert "Not carried out: reordered: naive | retrain | half | half, replay | infinite (seed 1)." in said
    assert "| average loss at the end: auto above the best single choice (replay) |" in said
    assert "figures from these very cells" not in said
    line = strategies_report.domains_line(result(reordered=some))
    assert line == "reordered (2 of 7 arms, 1 of 1 seed): 1 of 1 goals met"


def test_a_part_of_a_grid_has_a_report_and_a_plot_of_its_own(tmp_path: Path) -> None:
    grid = domain_grid()
    some = {**grid, "cells": [cell for cell in grid["cells"] if cell["cell"]["arm"] in ("naive", "replay")]}
    found = result(domains=some)
    assert "half's share" not in strategies_report.domains(found)
    plots.domain_losses(found, tmp_path / "domains.png")
    assert [path.name for path in tmp_path.iterdir()] == ["domains.png"]


def test_a_report_names_every_commit_and_torch_that_made_a_cell() -> None:
    """Of the result itself where a cell does not say; the cells that a rate was chosen by count too."""
    grid = sft_grid()
    assert "Commit `abc`, torch 2.13.0 on" in strategies_report.sft(result(families=grid))
    grid["cells"] = [{**grid["cells"][0], "commit": commit} for commit in ("b1", "a2", "b1")]
    grid["tuning"] = [
        {"cell": {"arm": "naive", "rate": 3e-4}, "select": 1.0, "commit": "c3", "machine": {"torch": "3"}}
    ]
    assert "Commits `a2`, `b1`, `c3`, torch 2.13.0 and 3 on" in strategies_report.sft(result(families=grid))


def test_a_report_says_what_has_not_been_carried_out() -> None:
    """By what the grid is today: an arm that came to it later is missing in an earlier result."""
    grid = sft_grid()
    found = result(families=grid)
    found["preset"] |= {"seeds": [1, 2], "arms": ["naive", "mos"]}
    said = strategies_report.sft(found)
    assert "families: 1 of 2 arms, 1 of 2 seeds." in said
    assert "Not carried out: families: mos (seeds 1, 2); naive (seed 2)." in said
    found["preset"] |= {"seeds": [1], "arms": ["naive"]}
    assert "Not carried out" not in strategies_report.sft(found)
    found["preset"] |= {"arms": []}
    assert "replay | half | half, replay | mos (seed 1)." in strategies_report.sft(found)


def test_a_report_says_what_failed_and_what_is_kept_but_not_shown() -> None:
    grid = sft_grid()
    failed = {"cell": {"arm": "mos", "seed": 1, "rate": 1e-2}, "failed": "Diverged: no"}
    grid |= {"failed": [failed], "tuning": [failed]}
    found = result(families=grid, earlier=[{"key": "k", "commit": "of old"}])
    said = strategies_report.sft(found)
    why = "mos at 0.01, seed 1 (Diverged: no)"
    assert f"Failed: families: tuning {why}; {why}." in said
    assert "replay | half | half, replay (seed 1)." in said
    assert "1 cells of settings that the grid no longer has" in said
    assert "of old" not in said


def test_a_report_says_by_how_many_documents_rates_were_chosen_where_it_is_known() -> None:
    grid = sft_grid()
    assert "one seed, on held-out documents." in strategies_report.sft(result(families=grid))
    grid["tuned_on"] = {"a-heldout": 3, "b-heldout": 7}
    assert "one seed, on `select`, 3 to 7 documents a set." in strategies_report.sft(result(families=grid))


def half(step: float, memory: float) -> dict[str, Any]:
    return {
        "step_ratio": {"median": step, "low": step - 0.01, "high": step, "values": [step] * 3},
        "step_bound": 0.9,
        "optimizer_ratio": memory,
        "trainable_share": 0.6,
    }


def test_half_costs_stand_beside_what_was_promised(tmp_path: Path) -> None:
    arms = {"half": half(0.91, 0.6), "bottom": half(0.72, 0.65)}
    measured = {"sizes": {"cpu": {"5M": {"parameters": 5_000_000, "arms": arms}}, "gpu": {}}}
    table = half_cost_tables.half_cost_table({"measured": measured})
    assert "| cpu, 5 M | half | 0.910 (0.900 to 0.910) | 0.900 | 0.600 | 0.620 |" in table
    assert "median of 3 pairs" in table
    missed = ("step of `bottom` over full", "optimizer memory of `bottom` over full")
    assert f"Missed: {'; '.join(f'cpu, 5 M: {one}' for one in missed)}." in table
    plots.half_cost({"measured": measured}, tmp_path / "x.png")
    assert (tmp_path / "x.png").is_file()


def test_the_agent_stands_beside_the_best_constant_mixture(tmp_path: Path) -> None:
    rows = [
        {"policy": name, "fall": fall, "fall_deviation": 0.01, "old_loss": 3.0, "new_loss": 4.0}
        for name, fall in (("uniform", 1.5), ("agent", 1.25))
    ]
    held_out = {
        "world": {"sources": ["a", "c"], "targets": ["b"]},
        "rows": rows,
        "guard": "uniform",
        "wins": 0,
        "facts": {"tokens_a_run": 1000, "seeds": [1, 2, 3]},
        "commits": ["k1"],
    }
    measured = {
        "collected": [{"world": {"sources": ["c"], "targets": ["d"]}, "commits": ["k2"]}],
        "agent": {"lessons": {"trajectories": 96}},
        "held_out": {"a-to-b": held_out},
    }
    found = {"measured": measured, "preset": {"regmix_runs": 64, "regmix_tokens": 50_000}}
    table = mixing_agent_tables.mixing_agent_table(found)
    assert "learned from 96 trajectories in environments without a and b. Its fall is 1.250, that of the best" in table
    assert "1.500 (uniform); the agent's was the greater one in 0 of 3 runs." in table
    assert "64 tiny runs of 50,000 tokens besides" in table
    assert "made by `k1`, `k2`." in table
    assert "| agent | 1.250 ± 0.010 | 3.0000 | 4.0000 |" in table
    plots.mixing_agent(found, tmp_path / "x.png")
    assert (tmp_path / "x.png").is_file()


def test_every_arm_has_a_look_of_its_own() -> None:
    grids = (domains.ARMS, classes.ARMS, sft.ARMS)
    names = {arm.name for arms in grids for arm in arms}
    assert names | set(main_job.ARMS) == set(plots.STYLES)
    assert len({plots.STYLES[name] for name in names}) == len(names)


def test_a_level_and_many_panels_are_drawn(tmp_path: Path) -> None:
    """The legend has the arms of all panels, in as many rows as there are panels over three."""
    lines: plots.Lines = {"joint": [[0.9]], "lora": [[1.0, 0.5]]}
    panels = {**dict.fromkeys(map(str, range(3)), lines), "other": {"mos": [[1.0, 0.5]]}}
    seen: list[Any] = []
    with plots._panels(panels, tmp_path / "x.png", height=3.0) as axes:
        for axis, each in zip(axes, panels.values(), strict=True):
            for arm, values in each.items():
                plots._line(axis, arm, values, 2)
        seen += axes
    figure = seen[0].figure
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"joint", "lora", "mos"}
    assert len({round(axis.get_position().y0, 3) for axis in seen}) == 2
    joint = next(line for line in seen[0].get_lines() if line.get_label() == "joint")
    assert list(joint.get_xdata()) == [0, 1]


def test_years_of_which_one_was_scored_are_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of one point would be dots over each other."""
    drawn: list[str] = []
    monkeypatch.setattr(plots, "bars", lambda panels, *_, **__: drawn.extend(panels))
    cells = [year_cell(arm.name, 2.0, tokens=1) for arm in ARMS]
    for cell in cells:
        cell["stages"][1]["scores"] = {}
    plots._years({"cells": cells}, tmp_path / "x.png")
    assert drawn == ["anchor and years so far, after 3"]


def test_of_a_smaller_preset_the_parts_are_shown_that_the_larger_one_lacks(tmp_path: Path) -> None:
    chapter = report.Chapter(name="grid", title="A grid", words=str, parts=("one", "two"))
    (tmp_path / "grid-standard.json").write_text(json.dumps({"one": 1}))
    (tmp_path / "grid-quick.json").write_text(json.dumps({"one": 2, "two": 3}))
    assert [found for _, found in report.largest(chapter, tmp_path)] == [{"one": 1}, {"two": 3}]
    (tmp_path / "grid-standard.json").write_text(json.dumps({"one": 1, "two": 4}))
    assert [found for _, found in report.largest(chapter, tmp_path)] == [{"one": 1, "two": 4}]
