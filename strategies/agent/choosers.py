"""Ways to choose mixtures that follow losses, within the limits of METHODS 4.1."""

from __future__ import annotations

from collections.abc import Mapping

from strategies.agent.environment import ProxyEnvironment
from strategies.agent.policy import Agent
from strategies.agent.rollout import Chooser, Mixture
from strategies.agent.steering import Guarded
from strategies.agent.trajectories import Trajectory
from strategies.mixing.simplex import caps, within
from strategies.mixing.skill_it import SkillIt, identity
from strategies.parts import SkillItReweighting
from strategies.settings.mixing import MixtureLimits, SkillItSettings


def skill_it(environment: ProxyEnvironment, *, eta: float) -> Chooser:
    """Skill-It from the prior, each domain helping itself alone; a new window for every run."""
    header = environment.header(0)
    prior = dict(zip(header.names, header.prior, strict=True))
    settings = SkillItReweighting(eta=eta, window=SkillItSettings().window, graph=identity(header.names))

    def choose(history: Trajectory) -> Mixture:
        rule = SkillIt(settings, prior)
        found = rule.update(0, {}, dict(zip(history.names, history.start, strict=True)))
        for done in history.steps[-settings.window :]:
            found = rule.update(done.step, {}, dict(zip(history.names, done.losses, strict=True)))
        return _limited(environment, history, found)

    return choose


def steered(agent: Agent, environment: ProxyEnvironment, given: Mapping[str, Mixture]) -> Chooser:
    """The agent under its guard, which compares with the mixtures ``given`` too; a new guard for every run."""
    state: dict[str, Guarded] = {}

    def choose(history: Trajectory) -> Mixture:
        if not history.steps:
            state["guarded"] = Guarded(agent, environment.header(0), given=given)
        return _limited(environment, history, state["guarded"].next(history))

    return choose


def _limited(environment: ProxyEnvironment, history: Trajectory, proposed: Mapping[str, float]) -> Mixture:
    """The projection of METHODS 4.1 from the mixture before."""
    before = history.steps[-1].weights if history.steps else history.prior
    limits = MixtureLimits()
    most = _most(environment, history, limits.epochs_max)
    found = within(limits, dict(zip(history.names, before, strict=True)), proposed, most=most)
    return [found[name] for name in history.names]


def _most(environment: ProxyEnvironment, history: Trajectory, epochs_max: float | None) -> dict[str, float] | None:
    """Greatest weight of every domain under which the rest of the run repeats none too often."""
    if epochs_max is None:
        return None
    taken = dict.fromkeys(history.names, 0.0)
    for done in history.steps:
        for name, weight in zip(history.names, done.weights, strict=True):
            taken[name] += weight * done.tokens
    left = {name: epochs_max * count - taken[name] for name, count in environment.tokens.items()}
    return caps(left, environment.settings.step_tokens * (history.total - len(history.steps)))
