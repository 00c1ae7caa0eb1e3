"""Teach an agent from trajectories alone: supervised warm start, then conservative Q-learning (METHODS 4.1).

Deterministic for one seed, thread count and machine; a learner that is restored goes on with the very next update.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from strategies.agent import dirichlet
from strategies.agent.dataset import Batch, Dataset, Lessons
from strategies.agent.features import measure
from strategies.agent.model import Policy, Twins, frozen_head
from strategies.agent.trajectories import Trajectory
from strategies.errors import BadState
from strategies.settings import Json
from strategies.settings.agent import AgentSettings, LearningSettings
from strategies.training.checkpoint import Checkpoint, copied

MAX_JOINED = 400_000
"""Pairs of proposal and domain in one pass: a batch is worked off in pieces, so that memory stays bounded."""

MOST_CONSERVATIVE = 100.0
"""beta stays between where it began and so many times that."""

HASTE = 10.0
"""beta rises so many times as fast as it falls back: critics that value the unseen above the seen mislead at once."""


@dataclass(frozen=True, kw_only=True)
class Proposals:
    """Mixtures that a critic is pressed down on, with the densities they were drawn with."""

    mixtures: Tensor
    """[B, T, n, K]"""
    log_densities: Tensor
    """[B, T, n]"""


class Learner:
    """The state of learning. ``advance`` makes one update; ``policy`` and ``critics`` are what an agent keeps."""

    def __init__(
        self,
        trajectories: Sequence[Trajectory],
        agent: AgentSettings,
        learning: LearningSettings,
        *,
        device: torch.device | None = None,
    ) -> None:
        self.agent, self.learning = agent, learning
        self.device = device or torch.device("cpu")
        self.lessons = Lessons.of(trajectories)
        self.standardisation = measure(trajectories, strength=learning.strength)
        self.dataset = Dataset(trajectories, self.standardisation, learning)
        self.done = 0
        self.conservative = learning.conservative
        self._rng = np.random.Generator(np.random.PCG64(learning.seed))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(learning.seed)
            self.policy = Policy(agent).to(self.device)
            self.critics = Twins(agent).to(self.device)
            self.targets = Twins(agent).to(self.device)
        self.targets.load_state_dict(self.critics.state_dict())
        self.targets.requires_grad_(requires_grad=False)
        self._actor = torch.optim.Adam(self.policy.parameters(), lr=learning.actor_rate)
        self._critic = torch.optim.Adam(self.critics.parameters(), lr=learning.critic_rate)

    @property
    def total(self) -> int:
        """Updates in all, warm start and Q-learning."""
        return self.learning.warm_steps + self.learning.steps

    def advance(self) -> dict[str, float]:
        """One update of the phase that is due; returns its losses, each a mean over the batch's steps."""
        batch = self.dataset.batch(self._rng, size=self.learning.batch, window=self.agent.window).to(self.device)
        found = self._warm_update(batch) if self.done < self.learning.warm_steps else self._q_update(batch)
        self.done += 1
        return found

    def checkpoint(self) -> Checkpoint:
        """Everything the next update depends on."""
        modules = {"policy": self.policy, "critics": self.critics, "targets": self.targets}
        groups = {name: copied(module.state_dict()) for name, module in modules.items()}
        groups |= {f"adam-{name}": copied(_moments(one)) for name, one in self._optimizers().items()}
        return Checkpoint(
            step=self.done,
            values={"settings": self._settings(), "rng": self._state(), "conservative": self.conservative},
            groups=groups,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from :meth:`checkpoint`.

        Raises:
            BadState: it was written under other settings or trajectories, or parts of it are missing.
        """
        if checkpoint.values.get("settings") != self._settings():
            raise BadState("the unfinished agent was taught from other trajectories or with other settings")
        try:
            for name in ("policy", "critics", "targets"):
                getattr(self, name).load_state_dict(dict(checkpoint.groups[name]))
            for name, optimizer in self._optimizers().items():
                _load_moments(optimizer, checkpoint.groups[f"adam-{name}"])
            self._rng.bit_generator.state = checkpoint.values["rng"]
            self.conservative = float(checkpoint.values["conservative"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise BadState("what was kept of the unfinished agent is not whole") from error
        self.done = checkpoint.step

    def _optimizers(self) -> dict[str, torch.optim.Adam]:
        return {"actor": self._actor, "critic": self._critic}

    def _settings(self) -> Json:
        parts = {"agent": self.agent, "learning": self.learning, "lessons": self.lessons}
        return {name: part.model_dump(mode="json") for name, part in parts.items()}

    def _state(self) -> Json:
        return dict(self._rng.bit_generator.state)

    def _warm_update(self, batch: Batch) -> dict[str, float]:
        logs = self.policy(batch.states, batch.present)[:, :-1]
        wanted = (batch.kept * cross_entropy(batch.mixtures, logs, batch.present)).sum() / batch.kept.sum().clamp_min(1)
        self._actor.zero_grad(set_to_none=True)
        wanted.backward()  # type: ignore[no-untyped-call]
        self._actor.step()
        return {"clone": wanted.item()}

    def _q_update(self, batch: Batch) -> dict[str, float]:
        settings = self.learning
        for optimizer in self._optimizers().values():
            optimizer.zero_grad(set_to_none=True)
        steps = batch.real.sum()
        facts: dict[str, float] = {}
        for piece in batch.split(_rows_at_once(batch, settings.proposals)):
            for name, value in self._q_gradients(piece, steps).items():
                facts[name] = facts.get(name, 0.0) + value.item()
        for optimizer in self._optimizers().values():
            optimizer.step()
        self._follow_critics()
        self._tune_conservative(0.5 * (facts["gap_0"] + facts["gap_1"]))
        return {**facts, "conservative": self.conservative}

    def _q_gradients(self, batch: Batch, steps: Tensor) -> dict[str, Tensor]:
        """Gradients of all losses at the parameters before the update: the piece's part of means over ``steps``."""
        here, present = batch.states[:, :-1], batch.present
        logs = self.policy(batch.states, present)
        proposals = self._proposals(logs.detach(), batch)
        y = self._td_targets(logs.detach().exp(), batch)
        values: list[Tensor] = []
        facts: dict[str, Tensor] = {}
        for index, critic in enumerate(self.critics.both):
            embedded = critic.trunk(here, present)
            taken = critic.head(embedded, batch.mixtures[:, :, None], present).squeeze(-1)
            proposed = critic.head(embedded, proposals.mixtures, present)
            td = batch.mean((taken - y) ** 2, steps)
            pressed = batch.mean(pressure(proposed, proposals.log_densities) - taken, steps)
            (td + self.conservative * pressed).backward()  # type: ignore[no-untyped-call]
            values.append(frozen_head(critic, embedded, logs[:, :-1].exp()[:, :, None], present).squeeze(-1))
            facts |= {f"td_{index}": td, f"pressed_{index}": pressed}
            facts[f"gap_{index}"] = batch.mean(taken - proposed.mean(-1), steps)
        worth = -batch.mean(torch.minimum(*values), steps)
        clone = batch.mean(batch.kept * cross_entropy(batch.mixtures, logs[:, :-1], present), steps)
        (worth + self._clone_weight() * clone).backward()  # type: ignore[no-untyped-call]
        return {
            **{name: value.detach() for name, value in facts.items()},
            "worth": worth.detach(),
            "clone": clone.detach(),
        }

    @torch.no_grad()
    def _td_targets(self, mixtures: Tensor, batch: Batch) -> Tensor:
        """y [B, T]: the policy's mixtures [B, T + 1, K] valued one step ahead by the target critics."""
        ahead = self.targets(batch.states, mixtures[:, :, None], batch.present)[:, 1:, 0]
        return td_targets(batch.rewards, batch.last, ahead, self.learning.discount)

    @torch.no_grad()
    def _proposals(self, logs: Tensor, batch: Batch) -> Proposals:
        """A third from Dirichlet(1), a third around pi(s), a third around pi(s')."""
        third = self.learning.proposals // 3
        around = [parameters * self.agent.concentration for parameters in (logs[:, :-1].exp(), logs[:, 1:].exp())]
        shape = (*batch.mixtures.shape[:2], third, batch.mixtures.shape[2])
        present = batch.present[:, None, None].expand(shape)
        drawn, densities = [], []
        for parameters in (torch.ones_like(around[0]), *around):
            spread = parameters[:, :, None].expand(shape)
            drawn.append(dirichlet.draw(spread, present, self._rng))
            densities.append(dirichlet.log_density(drawn[-1], spread, present))
        return Proposals(mixtures=torch.cat(drawn, 2).exp().float(), log_densities=torch.cat(densities, 2).float())

    def _tune_conservative(self, gap: float) -> None:
        """beta rises while logged mixtures are valued below proposals, and falls back while they are valued above."""
        least, haste = self.learning.conservative, HASTE if gap < 0 else 1.0
        moved = self.conservative * math.exp(-self.learning.tuning_rate * haste * max(-1.0, min(1.0, gap)))
        self.conservative = max(least, min(moved, MOST_CONSERVATIVE * least))

    def _clone_weight(self) -> float:
        """lambda, linear from ``clone_start`` to ``clone_end`` over the updates of Q-learning."""
        spot = (self.done - self.learning.warm_steps) / max(1, self.learning.steps - 1)
        return self.learning.clone_start + (self.learning.clone_end - self.learning.clone_start) * spot

    @torch.no_grad()
    def _follow_critics(self) -> None:
        for target, critic in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
            target.lerp_(critic, self.learning.target_rate)


def td_targets(rewards: Tensor, last: Tensor, ahead: Tensor, discount: float) -> Tensor:
    """y = r + gamma * min_j Qbar_j(s', pi(s')), without bootstrap at the last step of a run; all [B, T]."""
    return rewards + discount * (1 - last) * ahead


def pressure(proposed: Tensor, log_densities: Tensor) -> Tensor:
    """log( (1/n) sum_u exp(Q(s, u) - log p(u)) ), [B, T, n] -> [B, T]: the log-integral of exp Q, estimated."""
    return torch.logsumexp(proposed - log_densities, -1) - float(np.log(proposed.shape[-1]))


def cross_entropy(mixtures: Tensor, logs: Tensor, present: Tensor) -> Tensor:
    """-sum_k a_k log pi_k, [B, T, K] -> [B, T]."""
    return -(mixtures * logs.masked_fill(~present[:, None], 0)).sum(-1)


def _rows_at_once(batch: Batch, proposals: int) -> int:
    return max(1, MAX_JOINED // (batch.mixtures[0].numel() * proposals))


def _moments(optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": one for index, moments in state.items() for name, one in moments.items()}


def _load_moments(optimizer: torch.optim.Adam, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, one in tensors.items():
        index, _, what = name.partition(".")
        state.setdefault(int(index), {})[what] = one
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def train(learner: Learner, *, until: int | None = None) -> Iterable[dict[str, float]]:
    """Update after update, until ``until`` of them are done (all of them unless said)."""
    while learner.done < (learner.total if until is None else min(until, learner.total)):
        yield learner.advance()
