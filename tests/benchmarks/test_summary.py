"""The report's figures follow from the results, and from nothing else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import report, summary
from tests.benchmarks.figures import Spread, shown
from tests.benchmarks.inputs import BATCHES, DOMAINS, Inputs, Missing

BASE = dict.fromkeys(DOMAINS, 4.0)


def cell(arm: str, seed: int, *, anchor: float, new: float, tokens: int) -> dict[str, Any]:
    """A cell whose anchor rises to ``anchor`` at once, and whose new domains all end at ``new``."""
    scores = dict.fromkeys(DOMAINS, new) | {"novels-en": anchor}
    stages = [{"domain": domain, "scores": scores, "tokens": tokens, "gate": "pass"} for domain in BATCHES]
    return {"cell": {"arm": arm, "seed": seed}, "base": BASE, "stages": stages}


def result(*, replay_new: float = 2.02) -> dict[str, Any]:
    """Two seeds of each arm."""
    cells = [cell("naive", seed, anchor=5.0, new=2.0, tokens=100) for seed in (1, 2)]
    cells += [cell("rewarm-replay", seed, anchor=4.1, new=replay_new, tokens=100) for seed in (2, 1)]
    cells += [cell("retrain", seed, anchor=4.0, new=2.0, tokens=250) for seed in (1, 2)]
    preset = {"name": "quick", "tokens": 50_000, "seeds": [1, 2]}
    machine = {"torch": "2.13.0", "cores": 2}
    return {
        "preset": preset,
        "cells": cells,
        "learning_rate": 3e-4,
        "commit": "abc",
        "machine": machine,
        "wall_s": 60.0,
    }


def measured(found: dict[str, Any]) -> dict[str, float]:
    """What is measured -> mean."""
    return {goal.what: goal.measured.mean for goal in summary.goals(found)}


def test_the_rise_of_the_anchor_is_a_share_of_naives() -> None:
    assert measured(result())["rise of novels-en after speeches-en, as a share of naive's"] == pytest.approx(0.1)


def test_tokens_are_a_share_of_retrainings() -> None:
    assert measured(result())["tokens trained on, as a share of retraining's"] == pytest.approx(0.4)


def test_new_domains_are_compared_with_naive_at_their_own_stage() -> None:
    assert measured(result())["loss on novels-de at its own stage, above naive's"] == pytest.approx(0.01)


def test_a_missed_goal_is_stated() -> None:
    text = summary.markdown(result(replay_new=2.062))
    assert "Missed: loss on speeches-en at its own stage, above naive's." in text
    assert "**no**" in text


def test_nothing_is_said_to_be_missed_where_all_goals_are_met() -> None:
    assert "No goal was missed." in summary.markdown(result())


def test_one_seed_has_no_interval() -> None:
    assert Spread(values=(1.0,)).half_width is None


def test_what_is_alike_under_all_seeds_has_no_interval_and_what_is_not_there_no_figure() -> None:
    found = [Spread(values=values) for values in ((1.0, 1.0), (-1e-9,), (), (float("nan"),))]
    assert [shown(one) for one in found] == ["1.000", "0.000", "", ""]


def test_the_interval_is_students() -> None:
    assert Spread(values=(1.0, 2.0, 3.0)).half_width == pytest.approx(4.303 / 3**0.5)


def test_the_readme_shows_what_the_results_say() -> None:
    text = report.README.read_text(encoding="utf-8")
    assert report.with_part(text, report.readme_part()) == text
    assert report.PAGE.read_text(encoding="utf-8") == report.page()


def test_every_row_of_the_readmes_table_has_its_three_cells() -> None:
    rows = [line for line in report.readme_part().splitlines() if line.startswith("| ")]
    assert len(rows) == len(report.GRIDS) + 2
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {4}


def test_a_readme_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="marks"):
        report.with_part("# Rekindle", "")


def test_absent_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"config\.json is not there"):
        Inputs.under(tmp_path).check()
