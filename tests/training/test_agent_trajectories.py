"""Trajectories and proposals: closed, versioned, by value."""

from __future__ import annotations

import itertools
import json
import math
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import kstest, uniform

from strategies.agent import proposals
from strategies.agent.proposals import Proposal, propose, replay
from strategies.agent.trajectories import MixtureStep, Trajectory, TrajectoryDomain, TrajectoryHeader, append, read
from strategies.errors import BadPlan, BadState
from strategies.settings.agent import ProposalSettings

OLD = TrajectoryDomain(name="old", new=False, prior=0.75)
NEW = TrajectoryDomain(name="new", new=True, prior=0.25, similarity=0.5)
HEADER = TrajectoryHeader(environment="tiny", domains=(OLD, NEW), total=3)


def logged() -> Trajectory:
    return HEADER.begun((2.0, 3.0)).after(weights=(0.25, 0.75), losses=(2.1, 2.5), tokens=400)


def test_a_trajectory_reads_back_equal_beside_others(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    longer = logged().after(weights=(1.0, 0.0), losses=(2.0, 2.6), tokens=400)
    append(path, [logged()])
    append(path, [longer])
    first, second = read(path)
    assert (len(first.steps), second) == (1, longer)
    assert second.steps[0] == MixtureStep(step=1, weights=(0.25, 0.75), losses=(2.1, 2.5), tokens=400)


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps({**logged().model_dump(mode="json"), "format": 3}) + "\n")
    with pytest.raises(BadState, match="format 3, this version reads 2: update Rekindle"):
        list(read(path))


def test_a_trajectory_of_format_1_is_read(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    old, new = ({**one.model_dump(exclude={"new"}), "target": one.new} for one in (OLD, NEW))
    path.write_text(json.dumps({**logged().model_dump(mode="json"), "format": 1, "domains": [old, new]}) + "\n")
    assert list(read(path)) == [logged()]


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps({**logged().model_dump(mode="json"), "mood": "good"}) + "\n")
    with pytest.raises(BadState, match="line 1, is not a trajectory"):
        list(read(path))


def test_a_torn_last_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    append(path, [logged()])
    path.write_bytes(path.read_bytes() + path.read_bytes()[:40])
    with pytest.raises(BadState, match="line 2, is not JSON"):
        list(read(path))


@pytest.mark.parametrize("weights", [(0.5, 0.6), (-0.1, 1.1), (math.nan, 1.0)])
def test_weights_that_are_no_mixture_are_refused(weights: tuple[float, float]) -> None:
    with pytest.raises(ValidationError):
        logged().after(weights=weights, losses=(1.0, 1.0), tokens=1)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Trajectory(environment="tiny", domains=(OLD, NEW), total=3, start=(math.inf, 1.0))


def test_no_step_fits_after_the_last() -> None:
    full = logged()
    for _ in range(2):
        full = full.after(weights=(1.0, 0.0), losses=(1.0, 1.0), tokens=1)
    assert full.complete
    with pytest.raises(ValidationError, match="up to total"):
        full.after(weights=(1.0, 0.0), losses=(1.0, 1.0), tokens=1)


def test_proposals_are_the_same_by_value_and_differ_by_seed() -> None:
    settings = ProposalSettings(trajectories=20, steps=6)
    again = propose([OLD, NEW], settings)
    assert propose([OLD, NEW], settings) == again
    assert propose([OLD, NEW], ProposalSettings(trajectories=20, steps=6, seed=1))[-1] != again[-1]


def test_every_proposal_is_a_run_of_mixtures() -> None:
    found = propose([OLD, NEW], ProposalSettings(trajectories=40, steps=6))
    assert (len(found), {len(one.mixtures) for one in found}) == (40, {6})
    assert all(min(mixture) >= 0 for one in found for mixture in one.mixtures)
    assert all(math.isclose(sum(mixture), 1) for one in found for mixture in one.mixtures)


def test_heuristic_runs_come_first() -> None:
    found = propose([OLD, NEW], ProposalSettings(trajectories=40, steps=5), optima=[(0.3, 0.7)])
    named = {one.name: one.mixtures for one in found}
    assert named["uniform"][0] == (0.5, 0.5)
    assert named["prior"][0] == (0.75, 0.25)
    assert named["optimum-1"] == ((0.3, 0.7),) * 5
    assert named["replay-0.05"][4] == pytest.approx((0.05, 0.95))
    assert [mixture[1] for mixture in named["ramp-to-new"]] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert named["ramp-to-old"] == named["ramp-to-new"][::-1]


def test_replay_splits_each_side_by_prior() -> None:
    more = TrajectoryDomain(name="more", new=False, prior=0.25)
    assert replay([OLD.model_copy(update={"prior": 0.5}), more, NEW], 0.3) == pytest.approx((0.2, 0.1, 0.7))


def test_without_new_domains_nothing_is_replayed_or_ramped() -> None:
    names = {one.name for one in propose([OLD], ProposalSettings(trajectories=5, steps=2))}
    assert names == {"uniform", "prior", "walk-0", "walk-1", "walk-2"}


def test_walks_move_by_the_noise_unless_drawn_afresh() -> None:
    settings = ProposalSettings(trajectories=60, steps=30, concentration_low=5, noise=0.3)
    moving = [one.mixtures for one in propose([OLD, NEW], settings) if one.name.startswith("walk")]
    odds = [[math.log(a / b) for a, b in walk if min(a, b) > 0] for walk in moving]
    moves = [later - sooner for walk in odds for sooner, later in itertools.pairwise(walk)]
    small = [move for move in moves if abs(move) < 1.5]
    assert 0.88 < len(small) / len(moves) <= 0.97
    assert math.sqrt(sum(move**2 for move in small) / len(small)) == pytest.approx(0.3 * math.sqrt(2), rel=0.15)


def walks(count: int) -> list[Proposal]:
    """Runs of one step that are drawn by chance."""
    found = propose([OLD, NEW], ProposalSettings(trajectories=count + 7, steps=1))
    return [one for one in found if one.name.startswith("walk")]


def test_strengths_of_start_points_are_log_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def kept(draw: random.Random, strength: float, prior: Sequence[float]) -> list[float]:
        seen.append(strength)
        return [0.0, 0.0]

    monkeypatch.setattr(proposals, "_dirichlet", kept)
    walks(2000)
    assert len(seen) == 2000
    assert kstest(np.log(seen), uniform(math.log(0.1), math.log(50)).cdf).pvalue > 0.01


def test_start_points_spread_around_the_prior_as_their_strengths_do() -> None:
    """Of strength c and mean m the variance is m (1 - m) / (c + 1); the mean of 1 / (c + 1) is ln(55 / 6) / ln 50."""
    starts = np.array([one.mixtures[0] for one in walks(4000)])
    assert starts.mean(0) == pytest.approx([0.75, 0.25], abs=0.02)
    assert starts.var(0) == pytest.approx([0.75 * 0.25 * math.log(55 / 6) / math.log(50)] * 2, abs=0.01)


def test_an_optimum_of_other_domains_is_refused() -> None:
    with pytest.raises(BadPlan, match="2 weights"):
        propose([OLD, NEW], ProposalSettings(), optima=[(1.0,)])


def test_planning_and_logging_bring_no_heavy_library() -> None:
    modules = "strategies.settings.agent, strategies.agent.proposals, strategies.agent.trajectories"
    script = f"import sys, {modules}; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
