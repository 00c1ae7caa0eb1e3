"""Tables of domains and years follow from the results, and from nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks import domain_tables, reading, text_tables, year_tables
from tests.benchmarks.domains import ANCHOR, DOMAINS
from tests.benchmarks.figures import Goal, Spread, goals_table
from tests.benchmarks.made_results import by_what, domain_cell, domain_grid, year_cell, year_grid


def row(table: str, *begin: str) -> list[str]:
    """The figures of the first row that begins so."""
    start = f"| {' | '.join(begin)} |"
    return [one.strip() for one in next(line for line in table.splitlines() if line.startswith(start)).split("|")[1:-1]]


def at_rate(cell: dict[str, Any], rate: float) -> dict[str, Any]:
    return {**cell, "cell": {**cell["cell"], "rate": rate}}


def test_replays_share_of_naives_forgetting_is_of_the_same_seed() -> None:
    goals = by_what(domain_tables.domain_goals(domain_grid()))
    goal = goals["anchor's rise after novels-de: share of naive's with replay"]
    assert goal.measured.values == pytest.approx((0.05,))
    assert goal.met


def test_a_quarter_of_replay_is_held_to_the_same_under_a_strong_shift() -> None:
    goals = by_what(domain_tables.domain_goals(domain_grid()))
    share = goals["anchor's rise after code-python: share of naive's with replay 25 %"]
    assert share.measured.mean == pytest.approx(0.3)
    assert goals["loss on code-python at its own stage: replay 25 % above naive"].measured.mean == pytest.approx(0.0)


def test_half_is_held_to_a_tenth_less_than_naive_by_year_too() -> None:
    what = "anchor's rise at the end: half's share of naive's"
    assert by_what(domain_tables.domain_goals(domain_grid()))[what].measured.mean == pytest.approx(0.8)
    grid = year_grid()
    for arm, loss in (("naive", 8.0), ("half", 6.0)):
        reading.end(reading.cells(grid, arm)[1])[ANCHOR] = loss
    assert by_what(year_tables.temporal_goals(grid))[what].measured.mean == pytest.approx(0.5)


def test_auto_is_held_to_the_best_single_choice_but_not_to_retraining() -> None:
    (goal,) = text_tables.auto_goal(domain_grid())
    assert "(half, replay)" in goal.what
    assert goal.measured.mean == pytest.approx(0.0)


def test_that_auto_equals_the_best_choice_by_construction_is_said_and_what_retraining_is_ahead() -> None:
    grid = domain_grid()
    words = text_tables.auto_words(grid)
    assert "`auto` chose what `half, replay` is at every stage" in words
    assert "`retrain`, which trains on 1.0 times the tokens" in words
    reading.end(reading.cells(grid, "auto")[1])[ANCHOR] = 4.0
    words = text_tables.auto_words(grid)
    assert "by construction" not in words
    assert "`auto` ends -0.4% above it." in words
    alone = {**grid, "cells": [one for one in grid["cells"] if one["cell"]["arm"] == "auto"]}
    assert text_tables.auto_words(alone) == ""


def test_auto_is_compared_with_each_choice_over_the_seeds_of_both() -> None:
    """The choice that only the first seed has is no better for the others' harder seeds."""
    grid = domain_grid()
    grid["cells"] += [domain_cell("auto", 2, anchor=8.0), domain_cell("replay", 2, anchor=8.0)]
    (goal,) = text_tables.auto_goal(grid)
    assert goal.measured.mean == pytest.approx(0.0)
    apart = [domain_cell("auto", 1, anchor=4.0), domain_cell("replay", 2, anchor=4.0)]
    assert text_tables.auto_goal({**grid, "cells": apart}) == []


def test_an_arm_is_held_to_naive_at_its_own_rate() -> None:
    grid = domain_grid()
    for cell in reading.cells(grid, "half").values():
        cell["cell"]["rate"] = 1e-3
    lacking = {what for what in by_what(domain_tables.domain_goals(grid)) if "half's share" in what}
    assert not lacking
    assert "naive was not carried out at 0.001 (for half)." in reading.uncompared(grid)
    grid["references"] = [at_rate(domain_cell("naive", anchor=8.0), 1e-3)]
    measured = by_what(domain_tables.domain_goals(grid))["anchor's rise at the end: half's share of naive's"].measured
    assert measured.mean == pytest.approx((5.6 / 4 - 1) / (8.0 / 4 - 1))
    assert reading.uncompared(grid) == ""


def test_adapters_take_other_rates_and_are_not_held_to_naive_at_theirs() -> None:
    grid = domain_grid()
    for cell in reading.cells(grid, "mos").values():
        cell["cell"]["rate"] = 1e-2
    tried = {"naive": (1e-4, 1e-3), "mos": (1e-2, 3e-2)}
    grid["tuning"] = [{"cell": {"arm": arm, "rate": rate}, "select": 1.0} for arm in tried for rate in tried[arm]]
    assert reading.lacking_references({**grid, "cells": [*reading.cells(grid, "mos").values()]}) == ""


def test_the_base_and_naive_at_the_others_rates_have_rows() -> None:
    grid = domain_grid()
    grid["references"] = [at_rate(domain_cell("naive", anchor=8.0), 1e-3)]
    table = domain_tables.domains_table(grid)
    assert row(table, "base")[2] == "4.000"
    assert row(table, "naive", "0.001")[2:4] == ["3.000", "100.0%"]
    years = year_grid()
    years["cells"][0]["base"] |= {ANCHOR: 5.0, "1995": 9.0}
    assert row(year_tables.temporal_table(years), "base")[2:4] == ["4.333", "5.500"]


def test_a_rate_at_the_edge_of_what_was_tried_is_marked() -> None:
    grid = domain_grid()
    selects = {"naive": (1.0, 2.0, 3.0), "replay": (2.0, 1.0, 3.0), "half": (2.0, 1.0, None), "auto": (1.0, 1.0, 1.0)}
    grid["tuning"] = [
        {"cell": {"arm": arm, "rate": rate}, **({"failed": "it diverged"} if select is None else {"select": select})}
        for arm, found in selects.items()
        for rate, select in zip((3e-4, 1e-3, 3e-3), found, strict=True)
    ]
    grid["rates"] |= {"replay": 1e-3, "half": 1e-3}
    assert [reading.rate_shown(grid, arm) for arm in selects] == ["0.0003†", "0.001", "0.001", "0.0003="]
    assert all(words in reading.rate_notes(grid) for words in ("may lie beyond", "came to the same"))
    assert reading.rate_notes(domain_grid()) == ""


def test_a_rate_is_marked_in_results_from_before_cells_had_names() -> None:
    grid = domain_grid()
    grid["tuning"] = [{"arm": "naive", "rate": rate, "select": rate} for rate in (3e-4, 1e-3)]
    assert reading.rate_shown(grid, "naive") == "0.0003†"


def test_the_shares_that_replay_took_are_said_by_stage() -> None:
    grid = domain_grid()
    for arm, shares in (("replay", (0.25, 0.5, 0.5, 0.5, 0.1)), ("infinite", (0.25, 0.5, 0.5, 0.5, 0.1))):
        for made, share in zip(reading.cells(grid, arm)[1]["stages"], shares, strict=True):
            made["values"] = {"replay": share}
    assert text_tables.old_shares(grid) == (
        "Share of old rows in every step: `replay`, `infinite`: 25%, 50% from reviews-en on, 10% from code-python on."
    )
    assert text_tables.old_shares(domain_grid()) == ""


def test_what_ends_ahead_of_replay_and_what_behind_the_base_is_said() -> None:
    cells = [domain_cell(arm, seed, anchor=4.1) for arm in ("naive", "replay", "infinite") for seed in (1, 2)]
    cells[0]["stages"][-1]["scores"][ANCHOR], cells[4]["stages"][-1]["scores"][ANCHOR] = 40.0, 4.0
    words = domain_tables.standing_words({"cells": cells, "rates": {}})
    assert words == (
        "Below `replay` in average loss at the end: `infinite`. Above the base, which was trained on nothing: `naive`."
    )
    assert domain_tables.standing_words({"cells": cells[2:4], "rates": {}}) == ""


def test_what_freezing_from_the_bottom_costs_is_said() -> None:
    grid = domain_grid()
    for made in reading.cells(grid, "half, bottom")[1]["stages"]:
        made["scores"][made["name"]] = 2.1
    words = domain_tables.bottom_words(grid)
    assert "beside `half` at the same rate: own loss +5.0%, " in words
    assert "the anchor's rise -38.7 points" in words
    assert "beside naive at the same rate: own loss +5.0%" in words
    grid["rates"]["half"] = 1e-3
    assert "beside `half` at another rate" in domain_tables.bottom_words(grid)


def test_forgetting_is_above_the_least_before_the_last_stage() -> None:
    cell = domain_cell("naive", anchor=6.0)
    cell["stages"][-1]["scores"] |= {DOMAINS[0]: 3.0, DOMAINS[1]: 1.5}
    grid = {"cells": [cell], "rates": {"naive": 1e-3}}
    assert row(domain_tables.forgetting_table(grid), "naive")[1:] == ["2.000", "1.000", "-0.500", "0.000", "0.000"]
    assert row(domain_tables.domains_table(grid), "naive")[4] == "0.125"


def test_a_missed_goal_is_said() -> None:
    text = goals_table(domain_tables.domain_goals(domain_grid(replay=5.0)))
    assert "Missed: anchor's rise after novels-de: share of naive's with replay" in text
    assert "No goal was missed." in goals_table([Goal(what="x", measured=Spread(values=(0.0,)), limit=0.0)])


def test_what_is_to_beat_another_does_not_by_being_equal() -> None:
    text = goals_table([Goal(what="x", measured=Spread(values=(0.0,)), limit=0.0, strict=True)])
    assert "| x | 0.0% | < 0.0% | **no** |" in text


def test_where_naive_forgets_nothing_no_share_of_it_is_claimed() -> None:
    grid = domain_grid()
    for cell in grid["cells"]:
        for one in cell["stages"]:
            one["scores"][ANCHOR] = 3.9
    text = goals_table(domain_tables.domain_goals(grid))
    what = "anchor's rise after novels-de: share of naive's with replay"
    assert f"| {what} | nothing was forgotten | ≤ 10.0% |  |" in text
    assert "No goal was missed." in text


def test_halves_are_compared_at_one_rate_alone() -> None:
    grid = domain_grid()
    assert any("half with replay less replay" in goal.what for goal in domain_tables.domain_goals(grid))
    assert any("half with replay less replay" in goal.what for goal in year_tables.temporal_goals(year_grid()))
    assert text_tables.half_words(grid) == ""
    grid["rates"]["half, replay"] = 1e-3
    assert not any("half with replay less replay" in goal.what for goal in domain_tables.domain_goals(grid))
    assert "at rates of 0.001 and 0.0003" in text_tables.half_words(grid)


def test_years_are_compared_where_retraining_is_due() -> None:
    goals = year_tables.temporal_goals(year_grid())
    assert goals[0].measured.mean == pytest.approx(2.0 / 1.99 - 1)
    assert "| year 2 | year 3 |" in year_tables.temporal_table(year_grid())


def test_compute_is_counted_in_tokens_and_in_time_with_measuring() -> None:
    goals = by_what(year_tables.temporal_goals(year_grid()))
    assert goals["tokens trained on by auto, as a share of retraining's"].measured.mean == pytest.approx(30 / 120)
    seconds = goals["CPU seconds of auto, measuring before its choices included, as a share of retraining's"]
    assert seconds.measured.mean == pytest.approx(30 / 20)
    assert "10% of `auto`'s CPU seconds are measuring" in year_tables.measuring_words(year_grid())


def test_what_a_gate_scores_is_no_cost_of_a_strategy() -> None:
    cell = domain_cell("naive", anchor=4.0)
    for made in cell["stages"]:
        made["cpu_s"]["gate"] = 100.0
    assert reading.cost(cell) == reading.cost(domain_cell("naive", anchor=4.0))


def test_a_time_is_the_least_over_the_seeds_and_a_count_their_mean() -> None:
    slow, fast = domain_cell("naive", 1, anchor=4.0), domain_cell("naive", 2, anchor=4.0)
    slow["stages"][0]["cpu_s"]["train"] += 1000
    slow["stages"][0]["tokens"] += 10
    tokens, seconds = reading.costs()
    assert seconds.of([slow, fast]) == "50"
    assert tokens.of([slow, fast]).startswith("505 ± ")


def test_years_are_forgotten_from_when_they_were_scored_first() -> None:
    grid = year_grid()
    for cell in grid["cells"]:
        cell["stages"][-1]["scores"] = {ANCHOR: 4.5, "1993": 1.5, "1994": 2.25, "1995": 1.0}
    table = year_tables.years_forgotten_table(grid)
    assert table.startswith(f"| arm | {ANCHOR} | 1993 to 1994 |")
    assert row(table, "naive")[1:] == ["2.500", "-0.125"]


def test_what_the_trunk_forgets_of_the_anchor_is_said_beside_its_average() -> None:
    grid = year_grid()
    for arm, loss in (("infinite", 4.5), ("replay", 4.25)):
        reading.end(reading.cells(grid, arm)[1])[ANCHOR] = loss
    words = "Of the anchor alone the infinite schedule forgot 2.500, re-warming 2.250."
    assert year_tables.infinite_words(grid) == words
    assert year_tables.infinite_words({**grid, "cells": [year_cell("replay", 2.0, tokens=1)]}) == ""
