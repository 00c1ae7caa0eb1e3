"""A mixing that follows losses: prefetch stops where they are due, and an interrupted run equals the whole one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from strategies.errors import BadPlan
from strategies.jobs.runtime import Stopped
from strategies.mixing.samplers import mixer
from strategies.mixing.weighted import WeightedMixer
from strategies.parts import SkillItReweighting, WeightedMixing
from strategies.settings.mixing import MixtureLimits
from strategies.training.loop import Loop
from tests.training import makers

STEPS, EVERY = 8, 3
SETS = ("batch-1", "anchor")


class Losses:
    """The loss on the first rows of each source, and every step at which it was asked for."""

    def __init__(self, loop: Loop, fail_at: int | None = None) -> None:
        self.loop, self.fail_at = loop, fail_at
        self.asked: list[int] = []
        self.drawn: list[int] = []

    def __call__(self) -> dict[str, float]:
        run = self.loop.run
        self.asked.append(run.step)
        self.drawn.append(mixer_of(self.loop).step)
        if run.step == self.fail_at:
            raise KeyboardInterrupt
        torch.rand(3)
        run.model.eval()
        with torch.no_grad():
            return {name: self._loss(name) for name in SETS}

    def _loss(self, name: str) -> float:
        (batch,) = self.loop.collate([(name, row) for row in range(3)])
        return float(self.loop.objective.loss(self.loop.run, batch)) / batch.weight


def mixing() -> WeightedMixing:
    return WeightedMixing(
        domains={"old": ("anchor",), "new": ("batch-1",)},
        weights={"old": "0.25"},
        rest="new",
        batch=4,
        order=11,
        observe_every=EVERY,
        reweight=SkillItReweighting(eta=3.0, window=3, graph={"old": {"anchor": 1.0}, "new": {"batch-1": 1.0}}),
        limits=MixtureLimits(),
    )


def observing(folder: Path, job: dict[str, Any], *, stop_at: int | None = None, fail_at: int | None = None) -> Loop:
    loop = makers.loop(folder, job, stop_at=stop_at)
    sizes = {name: len(rows) for name, rows in loop.collate.sources.items()}
    loop.mixing = mixer(mixing(), sizes, steps=loop.steps)
    loop.progress.mixing = loop.mixing.state_dict()
    loop.run.losses = Losses(loop, fail_at)
    return loop


def losses_of(loop: Loop) -> Losses:
    assert isinstance(loop.run.losses, Losses)
    return loop.run.losses


def mixer_of(loop: Loop) -> WeightedMixer:
    assert isinstance(loop.mixing, WeightedMixer)
    return loop.mixing


@pytest.fixture
def job(tmp_path: Path, gpt2: Path) -> dict[str, Any]:
    old = makers.text_documents(20, start=50)
    return makers.train_job(tmp_path, gpt2, makers.text_documents(20), old=old, steps=STEPS)


@pytest.fixture
def whole(tmp_path: Path, job: dict[str, Any]) -> Loop:
    loop = observing(tmp_path / "whole", job)
    loop.train()
    return loop


def assert_same(resumed: Loop, whole: Loop) -> None:
    makers.assert_equal(makers.weights(resumed), makers.weights(whole))
    assert resumed.progress.log.points == whole.progress.log.points
    assert resumed.progress.mixing == whole.progress.mixing
    assert resumed.progress.ledger.samples == whole.progress.ledger.samples


def test_losses_are_asked_for_at_the_start_and_after_every_third_step(whole: Loop) -> None:
    assert losses_of(whole).asked == [0, 3, 6]


def test_nothing_is_drawn_beyond_a_step_whose_losses_are_not_known(whole: Loop) -> None:
    assert losses_of(whole).drawn == losses_of(whole).asked


def test_the_weights_follow_the_losses_within_their_limits(whole: Loop) -> None:
    course = mixer_of(whole).trajectory
    assert [point.step for point in course] == [0, 3, 6]
    assert all(set(point.losses) == set(SETS) for point in course)
    shares = [float(point.weights["old"]) for point in course]
    assert 0 < abs(shares[1] - shares[0]) <= 0.15 + 1e-5


@pytest.mark.parametrize("step", range(1, STEPS))
def test_stopping_before_at_and_after_a_boundary_changes_no_bit(
    tmp_path: Path, job: dict[str, Any], whole: Loop, step: int
) -> None:
    with pytest.raises(Stopped):
        observing(tmp_path / "job", job, stop_at=step).train()
    resumed = observing(tmp_path / "job", job)
    resumed.train()
    assert resumed.progress.resumed_from == [step]
    assert_same(resumed, whole)


@pytest.mark.parametrize("step", [0, 3, 6])
def test_dying_while_losses_are_measured_changes_no_bit(
    tmp_path: Path, job: dict[str, Any], whole: Loop, step: int
) -> None:
    job["work"]["template"]["training"]["save_steps"] = 2
    with pytest.raises(KeyboardInterrupt):
        observing(tmp_path / "job", job, fail_at=step).train()
    resumed = observing(tmp_path / "job", job)
    resumed.train()
    assert_same(resumed, whole)


def test_measuring_moves_no_random_stream_and_leaves_dropout_on(
    tmp_path: Path, job: dict[str, Any], whole: Loop
) -> None:
    still = observing(tmp_path / "still", job)
    still.mixing = mixer(mixing().model_copy(update={"reweight": None}), mixer_of(still)._rows, steps=STEPS)
    still.train()
    silent = observing(tmp_path / "silent", job)
    plain = mixing().model_copy(update={"reweight": None, "observe_every": None})
    silent.mixing = mixer(plain, mixer_of(still)._rows, steps=STEPS)
    silent.train()
    assert (losses_of(still).asked, losses_of(silent).asked) == ([0, 3, 6], [])
    makers.assert_equal(makers.weights(still), makers.weights(silent))


def test_a_last_step_that_is_a_boundary_is_recorded_too(tmp_path: Path, gpt2: Path) -> None:
    old = makers.text_documents(20, start=50)
    loop = observing(tmp_path / "job", makers.train_job(tmp_path, gpt2, makers.text_documents(20), old=old, steps=6))
    loop.train()
    assert losses_of(loop).asked == [0, 3, 6]
    assert [point["step"] for point in loop.progress.mixing["course"]] == [0, 3, 6]


def test_a_mixing_that_follows_losses_is_refused_without_any(tmp_path: Path, job: dict[str, Any]) -> None:
    loop = observing(tmp_path / "job", job)
    loop.run.losses = None
    with pytest.raises(BadPlan, match="select sets"):
        loop.train()


def test_every_batch_knows_the_source_of_its_rows(tmp_path: Path, job: dict[str, Any]) -> None:
    loop = observing(tmp_path / "job", job)
    rows = [("anchor", 0), ("batch-1", 2), ("batch-1", 1), ("anchor", 3)]
    (batch,) = loop.collate(rows)
    assert batch.to(torch.device("cpu")).sources == ("anchor", "batch-1", "batch-1", "anchor")
    assert [part.sources for part in batch.split(3)] == [("anchor", "batch-1", "batch-1"), ("anchor",)]
