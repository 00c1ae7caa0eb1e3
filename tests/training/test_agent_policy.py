"""An agent's file, and what it proposes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from strategies.agent.folder import CARD, WEIGHTS
from strategies.agent.learning import Learner, train
from strategies.agent.policy import Agent
from strategies.agent.trajectories import Trajectory
from strategies.errors import BadPlan, BadState
from strategies.settings.agent import LearningSettings
from tests.training.agent_worlds import SMALL, other_world, runs, world

ORDER = [2, 0, 3, 1]


@pytest.fixture(scope="module")
def some() -> list[Trajectory]:
    return runs(world(total=5), 12)


@pytest.fixture(scope="module")
def agent(some: list[Trajectory]) -> Agent:
    learner = Learner(some, SMALL, LearningSettings(warm_steps=20, steps=4, batch=16, actor_rate=3e-3))
    for _ in train(learner):
        pass
    return Agent.of(learner)


def cut(run: Trajectory, steps: int) -> Trajectory:
    return run.model_copy(update={"steps": run.steps[:steps]})


def is_mixture(weights: tuple[float, ...]) -> bool:
    return sum(weights) == pytest.approx(1, abs=1e-12) and min(weights) >= 0


def edited(folder: Path, **changes: object) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **changes}))


def test_a_saved_agent_proposes_and_values_the_same(agent: Agent, some: list[Trajectory], tmp_path: Path) -> None:
    agent.save(tmp_path)
    again, history = Agent.load(tmp_path), cut(some[-1], 3)
    assert again.next(history) == agent.next(history)
    assert again.value(history, (0.1, 0.2, 0.3, 0.4)) == agent.value(history, (0.1, 0.2, 0.3, 0.4))
    assert again.origin == agent.origin


def test_a_proposal_is_a_mixture_that_depends_on_the_history(agent: Agent, some: list[Trajectory]) -> None:
    mixtures = [agent.next(cut(some[-1], steps)) for steps in range(5)]
    assert all(is_mixture(one) for one in mixtures)
    assert len(set(mixtures)) == 5


def test_a_proposal_permutes_with_the_domains(agent: Agent, some: list[Trajectory]) -> None:
    def moved(values: tuple[object, ...]) -> tuple[object, ...]:
        return tuple(values[at] for at in ORDER)

    history = cut(some[-1], 3)
    steps = [s.model_copy(update={"weights": moved(s.weights), "losses": moved(s.losses)}) for s in history.steps]
    other = history.model_copy(
        update={"domains": moved(history.domains), "start": moved(history.start), "steps": tuple(steps)}
    )
    assert agent.next(other) == pytest.approx(moved(agent.next(history)), abs=1e-6)


def test_only_the_last_window_and_the_running_statistics_count(agent: Agent, some: list[Trajectory]) -> None:
    assert SMALL.window == 4
    history = cut(some[-1], 4)
    later = history.steps[0].model_copy(update={"weights": (0.0, 0.0, 0.0, 1.0)})
    assert agent.next(history) != agent.next(history.model_copy(update={"steps": (later, *history.steps[1:])}))
    shorter = Agent(
        settings=SMALL.model_copy(update={"window": 3}),
        standardisation=agent.standardisation,
        origin=agent.origin,
        tensors={f"{n}.{k}": v for n in ("policy", "critics") for k, v in getattr(agent, n).state_dict().items()},
    )
    changed = history.model_copy(update={"steps": (later, *history.steps[1:])})
    assert shorter.next(history) == shorter.next(changed)


def test_an_agent_proposes_for_domains_it_has_never_seen(agent: Agent) -> None:
    history = runs(other_world(total=5), 12)[-1]
    mixtures = [agent.next(cut(history, steps)) for steps in range(3)]
    assert all(len(one) == 3 and is_mixture(one) for one in mixtures)
    assert len(set(mixtures)) == 3


def test_there_is_no_mixture_after_the_last_step(agent: Agent, some: list[Trajectory]) -> None:
    with pytest.raises(BadPlan, match="all 5 re-weighting steps"):
        agent.next(some[0])


def test_a_newer_agent_is_refused_by_name(agent: Agent, tmp_path: Path) -> None:
    agent.save(tmp_path)
    edited(tmp_path, format=2)
    with pytest.raises(BadState, match="format 2, this version reads 1: update Rekindle"):
        Agent.load(tmp_path)


def test_an_unknown_key_is_refused(agent: Agent, tmp_path: Path) -> None:
    agent.save(tmp_path)
    edited(tmp_path, temper="mild")
    with pytest.raises(BadState, match="temper"):
        Agent.load(tmp_path)


def test_changed_weights_are_refused(agent: Agent, tmp_path: Path) -> None:
    agent.save(tmp_path)
    data = bytearray((tmp_path / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (tmp_path / WEIGHTS).write_bytes(data)
    with pytest.raises(BadState, match=r"not what agent\.json was written with"):
        Agent.load(tmp_path)


def test_weights_of_another_width_are_refused(agent: Agent, tmp_path: Path) -> None:
    agent.save(tmp_path)
    edited(tmp_path, settings={**SMALL.model_dump(), "width": 8})
    with pytest.raises(BadState, match="cannot be read"):
        Agent.load(tmp_path)


def test_a_missing_agent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadState, match=r"agent\.json cannot be read"):
        Agent.load(tmp_path)


def test_the_default_agent_is_small(some: list[Trajectory], tmp_path: Path) -> None:
    learner = Learner(some, type(SMALL)(), LearningSettings())
    Agent.of(learner).save(tmp_path)
    assert (tmp_path / WEIGHTS).stat().st_size < 3_000_000
