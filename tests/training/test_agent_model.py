"""The networks serve any number of domains in any order, and no state sees the future."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from strategies.agent import dirichlet
from strategies.agent.features import FEATURES, deviations, measure, returns, reward_weights, rewards, tokens
from strategies.agent.model import Critic, Policy
from strategies.agent.trajectories import Trajectory, TrajectoryDomain
from strategies.settings.agent import AgentSettings
from tests.training.agent_worlds import runs, world

SETTINGS = AgentSettings(width=16, heads=2, layers=2, critic_width=8)
ORDER = [2, 0, 3, 1]


def states(domains: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.randn(2, 5, domains, FEATURES, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return made, torch.ones(2, domains, dtype=torch.bool)


def network(kind: type[Policy] | type[Critic]) -> Policy | Critic:
    """Random weights, the last layer's too."""
    torch.manual_seed(0)
    made = kind(SETTINGS).double()
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made


def mixtures(domains: int = 4) -> torch.Tensor:
    return torch.rand(2, 5, 3, domains, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_the_policy_permutes_with_the_domains() -> None:
    policy, (given, present) = network(Policy), states()
    plain = policy(given, present)
    assert plain.std() > 0.05
    torch.testing.assert_close(policy(given[:, :, ORDER], present), plain[:, :, ORDER], rtol=0, atol=1e-12)


def test_a_critic_does_not_see_the_order_of_the_domains() -> None:
    critic, (given, present), taken = network(Critic), states(), mixtures()
    plain = critic(given, taken, present)
    assert plain.std() > 0.01
    torch.testing.assert_close(critic(given[:, :, ORDER], taken[..., ORDER], present), plain, rtol=0, atol=1e-12)


def test_a_critic_sees_which_domain_is_given_what() -> None:
    critic, (given, present), taken = network(Critic), states(), mixtures()
    assert (critic(given, taken[..., ORDER], present) - critic(given, taken, present)).abs().min() > 1e-6


@pytest.mark.parametrize("kind", [Policy, Critic])
def test_no_step_sees_a_later_one(kind: type[Policy] | type[Critic]) -> None:
    net, (given, present) = network(kind), states()
    more = () if kind is Policy else (mixtures(),)
    changed = given.clone()
    changed[:, 3:] += 1.0
    before, after = net(given, *more, present), net(changed, *more, present)
    torch.testing.assert_close(after[:, :3], before[:, :3], rtol=0, atol=1e-12)
    assert (after[:, 3:] - before[:, 3:]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [Policy, Critic])
def test_padded_domains_change_nothing(kind: type[Policy] | type[Critic]) -> None:
    net, (given, present) = network(kind), states()
    wide = torch.cat([given, torch.full((2, 5, 2, FEATURES), 7.0)], 2)
    there = torch.tensor([True] * 4 + [False] * 2).expand(2, 6)
    if isinstance(net, Policy):
        found = net(wide, there)
        assert torch.isneginf(found[..., 4:]).all()
        torch.testing.assert_close(found[..., :4], net(given, present), rtol=0, atol=1e-12)
    else:
        taken = torch.cat([mixtures(), torch.zeros(2, 5, 3, 2)], -1)
        torch.testing.assert_close(net(wide, taken, there), net(given, mixtures(), present), rtol=0, atol=1e-12)


def test_a_new_policy_is_uniform() -> None:
    given, present = states()
    torch.testing.assert_close(Policy(SETTINGS).double()(given, present).exp(), torch.full((2, 5, 4), 0.25).double())


def dirichlet_of(parameters: torch.Tensor) -> torch.distributions.Distribution:
    return torch.distributions.Dirichlet(parameters)


def test_the_density_is_that_of_torch() -> None:
    parameters = torch.tensor([[2.0, 3.0, 0.5], [1.0, 1.0, 1.0]]).double()
    present = torch.ones_like(parameters).bool()
    logs = dirichlet.draw(parameters, present, np.random.default_rng(0))
    wanted = dirichlet_of(parameters).log_prob(logs.exp())
    torch.testing.assert_close(dirichlet.log_density(logs, parameters, present), wanted)


def test_padded_domains_are_not_in_a_density() -> None:
    parameters, present = torch.tensor([2.0, 3.0, 9.0]).double(), torch.tensor([True, True, False])
    logs = dirichlet.draw(parameters, present, np.random.default_rng(0))
    wanted = dirichlet_of(parameters[:2]).log_prob(logs[:2].exp())
    assert torch.isneginf(logs[2])
    torch.testing.assert_close(dirichlet.log_density(logs, parameters, present), wanted)


def test_draws_have_the_mean_they_are_drawn_around_and_survive_tiny_parameters() -> None:
    parameters = torch.tensor([60.0, 39.99999, 1e-9]).expand(4000, 3)
    logs = dirichlet.draw(parameters, torch.ones(4000, 3).bool(), np.random.default_rng(0))
    assert logs[:, :2].isfinite().all()
    torch.testing.assert_close(logs.exp().mean(0), torch.tensor([0.6, 0.4, 0.0]).double(), rtol=0, atol=2e-3)


def test_rewards_weigh_old_and_new_domains_alike() -> None:
    run = runs(world(total=3), 1)[0]
    sides = reward_weights(run)
    assert (sides[:2].sum(), sides[2:].sum()) == (1, 1)
    falls = np.array(run.start) - np.array(run.steps[0].losses)
    assert rewards(run, [0.5, 1, 2, 4])[0] == pytest.approx(
        0.5 * (falls[0] / 0.5 + falls[1]) + 0.5 * (falls[2] / 2 + falls[3] / 4)
    )


def test_returns_to_go_are_discounted() -> None:
    assert returns(np.array([1.0, 2.0, 4.0]), 0.5) == pytest.approx([3.0, 4.0, 4.0])


def test_deviations_are_taken_over_all_trajectories_and_steps() -> None:
    some = runs(world(total=3), 8)
    column = [loss for run in some for loss in (run.start[2], *(done.losses[2] for done in run.steps))]
    found = measure(some, strength=8).environments["power-laws"]["new"]
    assert (found.mean, found.deviation) == pytest.approx((np.mean(column), np.std(column)))


def one_step(batch: str, *, falls: tuple[float, float]) -> Trajectory:
    """A stream's run as it is exported: the anchor and a batch of its own, before and after."""
    domains = (TrajectoryDomain(name="anchor", new=False, prior=0.5), TrajectoryDomain(name=batch, new=True, prior=0.5))
    begun = Trajectory(environment="news", domains=domains, total=1, start=(3.0, 5.0))
    return begun.after(weights=(0.5, 0.5), losses=(3.0 - falls[0], 5.0 - falls[1]), tokens=64)


def test_runs_of_a_stream_are_rewarded_by_how_far_their_losses_fell() -> None:
    some = [one_step("batch-1", falls=(0.001, 0.003)), one_step("batch-2", falls=(1.0, 3.0))]
    statistics = measure(some, strength=16)
    small, large = (rewards(run, deviations(run, statistics))[0] for run in some)
    assert large / small == pytest.approx(1000)


def test_a_state_before_the_first_step_does_not_tell_where_losses_go() -> None:
    some = [one_step("batch-1", falls=(1.0, 3.0)), one_step("batch-2", falls=(-1.0, -3.0))]
    statistics = measure(some, strength=16)
    fallen, risen = (tokens(run, statistics)[0] for run in some)
    np.testing.assert_array_equal(fallen, risen)


def shortened(run: Trajectory, steps: int) -> Trajectory:
    return run.model_copy(update={"steps": run.steps[:steps]})


def test_a_state_depends_on_the_past_alone() -> None:
    some = runs(world(total=6), 8)
    statistics = measure(some, strength=8)
    np.testing.assert_array_equal(tokens(shortened(some[-1], 3), statistics), tokens(some[-1], statistics)[:4])


def test_a_domain_that_is_known_elsewhere_begins_with_its_statistics() -> None:
    statistics = measure(runs(world(total=6), 8), strength=8)
    known = statistics.environments["power-laws"]["new"]
    assert statistics.of("power-laws", "new") == (known, 8)
    found, strength = statistics.of("elsewhere", "new")
    assert (found.mean, found.deviation, strength) == pytest.approx((known.mean, known.deviation, 1))
    assert statistics.of("elsewhere", "never seen") == (statistics.pooled, 1)


def test_an_unknown_domain_is_soon_standardised_by_its_own_losses() -> None:
    some = runs(world(total=6), 8)
    statistics = measure(some, strength=8)
    far = some[-1].model_copy(update={"environment": "elsewhere", "start": tuple(9 + x for x in some[-1].start)})
    far = far.model_copy(
        update={"steps": tuple(s.model_copy(update={"losses": tuple(9 + x for x in s.losses)}) for s in far.steps)}
    )
    assert np.abs(tokens(far, statistics)[..., 2]).max() < 3
