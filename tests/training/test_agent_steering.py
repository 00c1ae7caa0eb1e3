"""An agent that steers a run: within its guard, by value alone, and exactly after a restart."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from strategies.agent.folder import CARD, fingerprint
from strategies.agent.policy import Agent
from strategies.agent.steering import Steering
from strategies.agent.trajectories import TrajectoryHeader
from strategies.errors import BadPlan, BadState
from strategies.parts import AgentReweighting
from tests.agents import DOMAINS, PRIOR, taught

LOSSES = [{"old": 3.0, "new": 5.0}, {"old": 3.1, "new": 4.6}, {"old": 3.1, "new": 4.3}, {"old": 3.2, "new": 4.1}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return taught(tmp_path_factory.mktemp("agent"))


def steering(folder: Path, *, patience: int = 3, total: int = 3, found: Mapping[str, float] | None = None) -> Steering:
    settings = AgentReweighting(
        folder=str(folder), sha256=fingerprint(folder), patience=patience, found=dict(found or {})
    )
    return Steering(settings, TrajectoryHeader(environment="s", domains=DOMAINS, total=total))


def course(one: Steering, losses: list[dict[str, float]], before: dict[str, float]) -> list[dict[str, float]]:
    found = []
    for at, seen in enumerate(losses):
        before = one.update(at, before, seen)
        found.append(before)
    return found


def test_mixtures_are_of_all_domains_and_the_last_look_changes_nothing(folder: Path) -> None:
    found = course(steering(folder), LOSSES, PRIOR)
    assert all(set(one) == set(PRIOR) for one in found)
    assert all(sum(one.values()) == pytest.approx(1) for one in found)
    assert found[3] == found[2]


def test_a_restart_goes_on_exactly(folder: Path) -> None:
    whole = course(steering(folder, patience=1), LOSSES, PRIOR)
    first = steering(folder, patience=1)
    before = course(first, LOSSES[:2], PRIOR)[-1]
    second = steering(folder, patience=1)
    second.load_state_dict(first.state_dict())
    assert course(second, LOSSES[2:], before) == whole[2:]


def test_the_guard_takes_over_for_good_where_a_constant_mixture_promises_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Agent, "value", lambda self, history, mixture: 1.0 if tuple(mixture) == (0.5, 0.5) else 0.0)
    found = course(steering(folder, patience=2), LOSSES, PRIOR)
    assert found[0] != {"old": 0.5, "new": 0.5}
    assert found[1:3] == [{"old": 0.5, "new": 0.5}] * 2


def test_a_mixture_that_was_searched_for_is_one_of_the_guards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = {"new": 0.4, "old": 0.6}
    monkeypatch.setattr(Agent, "value", lambda self, history, mixture: 1.0 if tuple(mixture) == (0.6, 0.4) else 0.0)
    assert course(steering(folder, patience=1, found=searched), LOSSES, PRIOR)[0] == searched
    assert course(steering(folder, patience=1), LOSSES, PRIOR)[0] != searched


def test_a_domain_without_a_loss_and_a_folder_without_an_agent_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadPlan, match="every domain"):
        steering(folder).update(0, PRIOR, {"old": 3.0})
    with pytest.raises(BadState, match="cannot be read"):
        steering(tmp_path)


def test_an_agent_that_took_the_place_of_the_planned_one_does_not_steer(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    (other / CARD).write_text((other / CARD).read_text() + " ")
    settings = AgentReweighting(folder=str(other), sha256=fingerprint(folder), patience=3)
    with pytest.raises(BadState, match="another agent than the plan was made with"):
        Steering(settings, TrajectoryHeader(environment="s", domains=DOMAINS, total=3))
