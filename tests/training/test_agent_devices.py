"""Proxy and learner compute on the device that a training job would be given."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from strategies.agent.commands import proxies
from strategies.agent.commands import teach as teaching
from strategies.agent.commands.collect import collect
from strategies.agent.commands.evaluate import evaluate
from strategies.agent.commands.graph import graph
from strategies.agent.commands.teach import teach
from strategies.agent.environment import DomainTokens, ProxyEnvironment
from strategies.agent.learning import Learner
from strategies.agent.requests import Collect, DomainFile, Evaluate, Graph, Report, Teach
from strategies.agent.rollout import constant, rollout
from strategies.agent.trajectories import append
from strategies.inference.precision import device_for
from strategies.settings.agent import AgentSettings, LearningSettings, ProposalSettings, ProxySettings
from tests.training.agent_worlds import SMALL, runs, world

PROXY = ProxySettings(hidden=16, length=16, batch=4, step_tokens=128, eval_tokens=32, steps=2, initial_steps=2)


def silent(report: Report) -> None:
    """Nobody looks."""


def tokens(name: str, start: int) -> DomainTokens:
    ids = np.asarray((start + np.arange(400)) % 7, dtype=np.int64)
    return DomainTokens(name=name, new=start > 0, train=ids, validation=ids[:80])


META = torch.device("meta")
"""Holds no numbers, but tells what was put on it; unlike a GPU, every machine has it."""


class Reached(Exception):
    """Names the device of what a network was given, in place of the network's answer."""


def stop_at(network: nn.Module) -> None:
    def look(_module: Any, given: Any, named: dict[str, Any]) -> None:
        raise Reached(*{one.device for one in (*given, *named.values()) if isinstance(one, Tensor)})

    network.register_forward_pre_hook(look, with_kwargs=True)


def test_the_proxys_weights_and_rows_are_on_its_device() -> None:
    data = [tokens("old", 0), tokens("new", 3)]
    start = {name: one.clone() for name, one in ProxyEnvironment("tiny", data, PROXY)._model.state_dict().items()}
    proxy = ProxyEnvironment("tiny", data, PROXY, device=META, start=start)
    weights = [*proxy._model.parameters(), *proxy._model.buffers()]
    assert {one.device for one in weights} == {META}
    assert proxy.under(PROXY).device == META
    stop_at(proxy._model)
    with pytest.raises(Reached) as held:
        proxy.reset(1)
    with pytest.raises(Reached) as trained:
        proxy.step([0.5, 0.5])
    assert held.value.args == trained.value.args == (META,)


def test_a_proxys_runs_on_a_jobs_device_start_from_main_memory() -> None:
    proxy = ProxyEnvironment("tiny", [tokens("old", 0), tokens("new", 3)], PROXY, device=device_for("auto"))
    before = {name: one.clone() for name, one in proxy.initial.items()}
    rollout(proxy, constant([0.5, 0.5]), seed=1)
    assert {one.device.type for one in proxy.initial.values()} == {"cpu"}
    assert all(torch.equal(proxy.initial[name], one) for name, one in before.items())


@pytest.mark.parametrize("warm_steps", [0, 1])
def test_a_learners_networks_and_batches_are_on_its_device(warm_steps: int) -> None:
    learning = LearningSettings(warm_steps=warm_steps, steps=1, batch=8)
    learner = Learner(runs(world(total=4), 8), SMALL, learning, device=META)
    weights = [*learner.policy.parameters(), *learner.critics.parameters(), *learner.targets.parameters()]
    assert {one.device for one in weights} == {META}
    stop_at(learner.policy)
    with pytest.raises(Reached) as reached:
        learner.advance()
    assert reached.value.args == (META,)


def test_a_learner_learns_on_a_jobs_device() -> None:
    learning = LearningSettings(warm_steps=1, steps=1, batch=8)
    learner = Learner(runs(world(total=4), 8), SMALL, learning, device=device_for("auto"))
    assert all(map(math.isfinite, (learner.advance()["clone"], learner.advance()["worth"])))


class Devices:
    """Stands in for the choice of a device, and hears where environments and learners were put."""

    chosen = torch.device("cpu", 0)
    """Nobody takes it without being told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.used: list[torch.device] = []
        for module, made in ((proxies, ProxyEnvironment), (teaching, Learner)):
            monkeypatch.setattr(module, "device_for", self._choose)
            monkeypatch.setattr(module, made.__name__, self._hearing(made))

    def _choose(self, asked: str) -> torch.device:
        self.asked.append(asked)
        return self.chosen

    def _hearing(self, made: Any) -> Any:
        def make(*given: Any, **named: Any) -> Any:
            one = made(*given, **named)
            self.used.append(one.device)
            return one

        return make


def test_collections_comparisons_and_graphs_run_where_a_job_would(
    tmp_path: Path, domains: tuple[DomainFile, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = Devices(monkeypatch)
    proposals = ProposalSettings(trajectories=1, steps=2)
    collect(Collect(domains=domains, out=str(tmp_path), proxy=PROXY, proposals=proposals, regmix_runs=0), silent)
    evaluate(Evaluate(domains=domains, proxy=PROXY, seeds=(1,), regmix_runs=0), silent)
    graph(Graph(domains=domains, proxy=PROXY, seeds=(1,)), silent)
    assert (devices.asked, devices.used) == (["auto"] * 3, [Devices.chosen] * 3)


def test_an_agent_is_taught_where_a_job_would_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path / "runs.jsonl", runs(world(total=4), 8))
    devices = Devices(monkeypatch)
    teach(
        Teach(
            trajectories=(str(tmp_path / "runs.jsonl"),),
            out=str(tmp_path / "agent"),
            agent=AgentSettings(width=8, heads=2, critic_width=4),
            learning=LearningSettings(warm_steps=1, steps=1, batch=4, proposals=3),
        ),
        silent,
    )
    assert (devices.asked, devices.used) == (["auto"], [Devices.chosen])
