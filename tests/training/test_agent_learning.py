"""Warm start and conservative Q-learning follow their equations, resume exactly, and find what is better."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from strategies.agent import dirichlet
from strategies.agent.comparison import baselines, compare
from strategies.agent.dataset import Batch, Dataset, kept_steps
from strategies.agent.features import measure, rewards
from strategies.agent.learning import Learner, cross_entropy, pressure, td_targets, train
from strategies.agent.policy import Agent
from strategies.agent.rollout import scripted
from strategies.errors import BadState, Refused
from strategies.settings.agent import AgentSettings, LearningSettings, ProposalSettings
from strategies.settings.mixing import AgentMixSettings
from strategies.training.checkpoint import CheckpointStore
from tests.training import makers
from tests.training.agent_worlds import SMALL, other_world, runs, world

QUICK = LearningSettings(warm_steps=3, steps=4, batch=8)
# Rates for hundreds of updates instead of thousands; rewards are small, and beta is in their units.
TAUGHT = LearningSettings(
    warm_steps=60, steps=200, batch=24, proposals=12, conservative=0.02, tuning_rate=0,
    actor_rate=2e-3, critic_rate=3e-3, target_rate=0.1, seed=1,
)  # fmt: skip


def test_what_is_not_set_is_as_in_the_methods() -> None:
    plain = LearningSettings()
    assert (plain.discount, plain.keep, plain.proposals, plain.batch) == (0.95, 0.3, 30, 256)
    assert (plain.conservative, plain.target_rate, plain.critic_rate, plain.actor_rate) == (1.0, 0.005, 3e-4, 1e-4)
    assert (plain.clone_start, plain.clone_end) == (1.0, 0.1)
    assert AgentSettings().concentration == 100
    assert AgentMixSettings().patience == 3
    drawn = ProposalSettings()
    assert (drawn.concentration_low, drawn.concentration_high, drawn.noise, drawn.fresh) == (0.1, 5.0, 0.3, 0.1)


def learner(settings: LearningSettings = QUICK) -> Learner:
    return Learner(runs(world(total=5), 12), SMALL, settings)


def test_the_last_step_of_a_run_does_not_bootstrap() -> None:
    rewarded, last, ahead = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[10.0, 10.0]])
    assert td_targets(rewarded, last, ahead, 0.95).tolist() == [[10.5, 2.0]]


def test_the_pressure_is_corrected_for_how_proposals_were_drawn() -> None:
    values, densities = torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[0.5, -0.5, 2.0]]])
    wanted = math.log((math.exp(0.5) + math.exp(2.5) + math.exp(1.0)) / 3)
    assert pressure(values, densities).item() == pytest.approx(wanted)


def test_the_pressure_of_a_constant_is_the_volume_of_the_simplex() -> None:
    parameters = torch.tensor([5.0, 3.0, 4.0, 2.0]).expand(60_000, 4)
    present = torch.ones_like(parameters).bool()
    logs = dirichlet.draw(parameters, present, np.random.default_rng(0))
    densities = dirichlet.log_density(logs, parameters, present)
    flat = pressure(torch.zeros_like(densities), densities).item()
    assert flat == pytest.approx(-math.lgamma(4), abs=0.15)


def test_cloning_is_the_cross_entropy_to_the_taken_mixture() -> None:
    taken, logs = torch.tensor([[[0.2, 0.8, 0.0]]]), torch.tensor([[[0.5, 0.5, 0.0]]]).log()
    assert cross_entropy(taken, logs, torch.tensor([[True, True, False]])).item() == pytest.approx(math.log(2))


def test_the_best_steps_of_each_progress_decile_are_kept() -> None:
    some = runs(world(total=20), 20)
    rewarded = [rewards(run, [1.0] * 4) for run in some]
    kept = np.stack(kept_steps(some, rewarded, LearningSettings(keep=0.3)))
    ahead = np.array([[sum(0.95**k * r for k, r in enumerate(one[at:])) for at in range(20)] for one in rewarded])
    for decile in range(10):
        chosen, worth = (table[:, 2 * decile : 2 * decile + 2].ravel() for table in (kept, ahead))
        assert chosen.sum() == 12
        assert worth[chosen == 1].min() > worth[chosen == 0].max()


def test_single_runs_are_compared_with_each_other_and_not_imitated_whole() -> None:
    some = [run.model_copy(update={"environment": f"job-{at}"}) for at, run in enumerate(runs(world(total=4), 10))]
    kept = np.stack(kept_steps(some, [rewards(run, [1.0] * 4) for run in some], LearningSettings(keep=0.3)))
    assert kept.sum(0).tolist() == [3] * 4


def test_steps_of_a_run_that_ended_early_are_not_imitated() -> None:
    some = runs(world(total=4), 6)
    short = some[0].model_copy(update={"steps": some[0].steps[:2]})
    kept = kept_steps([short, *some[1:]], [rewards(run, [1.0] * 4) for run in (short, *some[1:])], QUICK)
    assert kept[0].sum() == 0
    assert sum(one.sum() for one in kept) > 0


def test_every_transition_is_drawn_about_as_often() -> None:
    data = Dataset(some := runs(world(total=6), 1), measure(some, strength=8), QUICK)
    batch = data.batch(np.random.default_rng(0), size=6000, window=3)
    seen = np.rint(batch.states[:, :-1, 0, -1].numpy() * 6).astype(int)[batch.real.bool().numpy()]
    counts = np.bincount(seen, minlength=6)
    assert counts.min() / counts.max() > 0.9


def test_runs_of_different_numbers_of_domains_share_a_batch() -> None:
    mixed = [*runs(world(total=4), 4), *runs(other_world(total=4), 4)]
    batch = Dataset(mixed, measure(mixed, strength=8), QUICK).batch(np.random.default_rng(0), size=64, window=2)
    assert sorted(set(batch.present.sum(-1).tolist())) == [3, 4]
    one = Learner(mixed, SMALL, LearningSettings(warm_steps=1, steps=2, batch=8))
    assert all(math.isfinite(value) for found in train(one) for value in found.values())
    assert all(parameter.isfinite().all() for net in (one.policy, one.critics) for parameter in net.parameters())


def expected(one: Learner, batch: Batch, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """The losses of METHODS 4.1, with loops."""
    present, third, real = batch.present, one.learning.proposals // 3, batch.real
    here = batch.states[:, :-1]
    mean = one.policy(batch.states, present).exp()
    fixed = mean.detach()
    sources = [torch.ones_like(fixed[:, :-1]), 100 * fixed[:, :-1], 100 * fixed[:, 1:]]
    drawn: list[torch.Tensor] = []
    densities: list[torch.distributions.Distribution] = []
    for source in sources:
        spread = source[:, :, None].expand(-1, -1, third, -1)
        drawn.append(dirichlet.draw(spread, torch.ones_like(spread).bool(), rng))
        densities.append(torch.distributions.Dirichlet(spread.double().clamp_min(1e-3), validate_args=False))
    ahead = [net(batch.states, fixed[:, :, None], present)[:, 1:, 0] for net in one.targets.both]
    y = batch.rewards + 0.95 * torch.minimum(*ahead) * (1 - batch.last)
    found = {}
    for index, net in enumerate(one.critics.both):
        taken = net(here, batch.mixtures[:, :, None], present)[..., 0]
        parts = [
            net(here, logs.exp().float(), present) - density.log_prob(logs.exp())
            for logs, density in zip(drawn, densities, strict=True)
        ]
        pressed = torch.cat(parts, -1).exp().mean(-1).log() - taken
        found[f"td_{index}"] = (((taken - y) ** 2) * real).sum() / real.sum()
        found[f"pressed_{index}"] = (pressed * real).sum() / real.sum()
    worth = one.critics(here, mean[:, :-1, None], present)[..., 0]
    clone = -(batch.mixtures * mean[:, :-1].log()).sum(-1) * batch.kept
    return {**found, "worth": -(worth * real).sum() / real.sum(), "clone": (clone * real).sum() / real.sum()}


def test_losses_and_gradients_are_those_of_the_equations() -> None:
    one, twin = (learner(LearningSettings(warm_steps=0, steps=4, batch=8, conservative=0.7)) for _ in range(2))
    rng = np.random.Generator(np.random.PCG64(1234))
    batch = twin.dataset.batch(rng, size=8, window=SMALL.window)
    wanted = expected(twin, batch, rng)
    found = one.advance()
    assert {name: found[name] for name in wanted} == pytest.approx(
        {name: value.item() for name, value in wanted.items()}, rel=1e-3, abs=1e-4
    )
    of_critics = torch.stack([wanted[f"td_{at}"] + 0.7 * wanted[f"pressed_{at}"] for at in (0, 1)]).sum()
    of_actor = wanted["worth"] + wanted["clone"]
    for net, twin_net, loss in ((one.critics, twin.critics, of_critics), (one.policy, twin.policy, of_actor)):
        gradients = torch.autograd.grad(loss, [*twin_net.parameters()], retain_graph=True)
        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
            torch.testing.assert_close(makers.gradient(parameter), gradient, rtol=1e-3, atol=1e-5)


def test_a_batch_in_pieces_gives_the_same_update(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = LearningSettings(warm_steps=0, steps=1, batch=6, proposals=3)
    whole, pieces = learner(settings), learner(settings)
    fixed = torch.rand(6, SMALL.window, 3, 4, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(dirichlet, "draw", lambda p, present, rng: fixed[: len(p), :, : p.shape[2]].log_softmax(-1))
    fixed[:] = fixed[:1]
    first = whole.advance()
    monkeypatch.setattr("strategies.agent.learning.MAX_JOINED", 2 * 3 * SMALL.window * 4)
    assert pieces.advance() == pytest.approx(first, rel=1e-4)


def test_only_the_due_networks_move() -> None:
    one = learner(LearningSettings(warm_steps=1, steps=1, batch=8))
    before = one.checkpoint()
    one.advance()
    warm = one.checkpoint()
    one.advance()
    after = one.checkpoint()
    moved = {
        name: [not torch.equal(a.groups[name][k], b.groups[name][k]) for k in a.groups[name]]
        for a, b, name in [(before, warm, "critics"), (warm, after, "targets"), (before, warm, "policy")]
    }
    assert (any(moved["critics"]), any(moved["targets"]), any(moved["policy"])) == (False, True, True)
    key = "first.head.value.weight"
    followed = warm.groups["targets"][key].lerp(after.groups["critics"][key], 0.005)
    torch.testing.assert_close(after.groups["targets"][key], followed)


def test_cloning_fades_from_1_to_a_tenth() -> None:
    one, found = learner(LearningSettings(warm_steps=1, steps=4, batch=8)), []
    for _ in train(one):
        found.append(one._clone_weight())
    assert found[:4] == pytest.approx([1.0, 0.7, 0.4, 0.1])


def test_the_conservative_weight_rises_fast_falls_back_slowly_and_never_below_where_it_began() -> None:
    one = learner()
    one._tune_conservative(-0.5)
    assert one.conservative == pytest.approx(math.exp(0.25))
    one._tune_conservative(0.5)
    assert one.conservative == pytest.approx(math.exp(0.225))
    for _ in range(200):
        one._tune_conservative(-5.0)
    assert one.conservative == pytest.approx(100.0)
    for _ in range(200):
        one._tune_conservative(5.0)
    assert one.conservative == 1.0


@pytest.mark.parametrize(("seed", "conservative"), [(1, 1.0), (2, 1.0), (3, 1.0), (1, 0.0)])
def test_what_was_logged_is_valued_above_what_was_not_where_it_is_pressed(seed: int, conservative: float) -> None:
    settings = LearningSettings(
        warm_steps=0, steps=60, batch=24, proposals=12, actor_rate=2e-3, critic_rate=3e-3, target_rate=0.1,
        conservative=conservative, seed=seed,
    )  # fmt: skip
    gaps = [0.5 * (found["gap_0"] + found["gap_1"]) for found in train(Learner(runs(world(total=8)), SMALL, settings))]
    mean = sum(gaps[20:]) / 40
    assert mean > 0.2 if conservative else mean < -0.05


def test_the_same_seed_learns_the_same_bits() -> None:
    first, second = learner(), learner()
    assert [*train(first)] == [*train(second)]
    other = learner(LearningSettings(warm_steps=3, steps=4, batch=8, seed=5))
    assert [*train(other)] != [*train(learner())]


@pytest.mark.parametrize("cut", [2, 5])
def test_an_interrupted_learner_goes_on_bit_for_bit(tmp_path: Path, cut: int) -> None:
    whole, first, second = learner(), learner(), learner()
    wanted = [*train(whole)]
    store = CheckpointStore(tmp_path, fingerprint="agent", say=print)
    found = [*train(first, until=cut)]
    store.save(first.checkpoint())
    store.wait()
    checkpoint = store.load()
    assert checkpoint is not None
    second.restore(checkpoint)
    assert [*found, *train(second)] == wanted


def test_a_checkpoint_of_other_settings_is_refused() -> None:
    with pytest.raises(BadState, match="other settings"):
        learner().restore(learner(LearningSettings(warm_steps=3, steps=5, batch=8)).checkpoint())


def test_a_checkpoint_of_other_trajectories_is_refused() -> None:
    other = Learner(runs(world(total=4), 12), SMALL, QUICK)
    with pytest.raises(BadState, match="trajectories"):
        other.restore(learner().checkpoint())


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(Refused, match="needs trajectories"):
        Learner([], SMALL, QUICK)


def test_random_numbers_of_the_process_are_left_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    learner().advance()
    assert torch.equal(torch.rand(2), wanted)


def test_a_taught_agent_beats_uniform_and_what_it_learned_from() -> None:
    place = world(total=8)
    some = runs(place)
    one = Learner(some, SMALL, TAUGHT)
    for _ in train(one):
        pass
    logged = {f"logged-{at}": scripted([done.weights for done in run.steps]) for at, run in enumerate(some)}
    policies = {**baselines(place.domains), **logged, "agent": Agent.of(one).next}
    falls = {row.policy: row.fall for row in compare(place, policies, seeds=[0]).summaries()}
    behaviour = [fall for name, fall in falls.items() if name.startswith("logged")]
    assert falls["agent"] > falls["uniform"] + 0.15
    assert falls["agent"] > np.mean(behaviour) + 1.0
