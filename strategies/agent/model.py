"""The networks of an agent: one token a domain, so the same weights serve any number of domains in any order.

Shapes: B sub-sequences, T steps, K domains, F features, N mixtures. ``present`` [B, K] is false for padding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from strategies.agent.features import FEATURES
from strategies.settings.agent import AgentSettings

_SHARE_FLOOR = 1e-3


class Attention(nn.Module):
    """Self-attention over S of [R, S, width]; ``mask`` [R, 1, 1, S] is false for what is not attended to."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.joint = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        split = self.joint(x).unflatten(-1, (3, self.heads, -1)).transpose(-2, -4)
        query, key, value = split.unbind(-3)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal)
        return torch.as_tensor(self.out(mixed.transpose(-2, -3).flatten(-2)))


class Layer(nn.Module):
    """Attention across the domains of a step, then causal attention over a domain's steps, then a small network."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.domains = Attention(width, heads)
        self.steps = Attention(width, heads)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor, present: Tensor) -> Tensor:
        batch, steps, domains, _ = x.shape
        mask = present.repeat_interleave(steps, 0)[:, None, None]
        x = x + self.domains(self.norms[0](x).flatten(0, 1), mask=mask).unflatten(0, (batch, steps))
        over_steps = self.norms[1](x).transpose(1, 2).flatten(0, 1)
        x = x + self.steps(over_steps, causal=True).unflatten(0, (batch, domains)).transpose(1, 2)
        return x + torch.as_tensor(self.network(self.norms[2](x)))


class Trunk(nn.Module):
    """States [B, T, K, F] -> [B, T, K, width]; step t sees steps up to t."""

    def __init__(self, settings: AgentSettings) -> None:
        super().__init__()
        self.enter = nn.Linear(FEATURES, settings.width)
        self.layers = nn.ModuleList(Layer(settings.width, settings.heads) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.width)

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        x = self.enter(states)
        for layer in self.layers:
            x = layer(x, present)
        return torch.as_tensor(self.norm(x))


class Policy(nn.Module):
    """The mean mixture of every state, as logarithms [B, T, K]; uniform before it has learned anything."""

    def __init__(self, settings: AgentSettings) -> None:
        super().__init__()
        self.trunk = Trunk(settings)
        self.logit = nn.Linear(settings.width, 1)
        nn.init.zeros_(self.logit.weight)
        nn.init.zeros_(self.logit.bias)

    def forward(self, states: Tensor, present: Tensor) -> Tensor:
        logits = self.logit(self.trunk(states, present)).squeeze(-1)
        return torch.log_softmax(logits.masked_fill(~present[:, None], -torch.inf), -1)


class Critic(nn.Module):
    """Q(state, mixture), a scalar that does not depend on the order of the domains."""

    def __init__(self, settings: AgentSettings) -> None:
        super().__init__()
        width = settings.critic_width
        self.trunk = Trunk(settings)
        self.head = ValueHead(settings.width, width)

    def forward(self, states: Tensor, mixtures: Tensor, present: Tensor) -> Tensor:
        """States [B, T, K, F] and mixtures [B, T, N, K] -> values [B, T, N]."""
        return torch.as_tensor(self.head(self.trunk(states, present), mixtures, present))


class Twins(nn.Module):
    """Two critics with their own parameters; the lesser of their values counts."""

    def __init__(self, settings: AgentSettings) -> None:
        super().__init__()
        self.first = Critic(settings)
        self.second = Critic(settings)

    @property
    def both(self) -> tuple[Critic, Critic]:
        return self.first, self.second

    def forward(self, states: Tensor, mixtures: Tensor, present: Tensor) -> Tensor:
        """The lesser value [B, T, N]."""
        return torch.minimum(*(critic(states, mixtures, present) for critic in self.both))


class ValueHead(nn.Module):
    """Joins embedded states [B, T, K, width] with mixtures [B, T, N, K]; cheap, so that N can be large."""

    def __init__(self, width: int, joined: int) -> None:
        super().__init__()
        self.state = nn.Linear(width, joined)
        self.mixture = nn.Linear(2, joined)
        self.pooled = nn.Linear(joined, joined)
        self.value = nn.Linear(joined, 1)

    def forward(self, embedded: Tensor, mixtures: Tensor, present: Tensor) -> Tensor:
        shares = torch.stack([mixtures, torch.log((mixtures + _SHARE_FLOOR) * _count(present))], -1)
        joined = functional.gelu(self.state(embedded)[:, :, None] + self.mixture(shares))
        kept = joined * present[:, None, None, :, None]
        pooled = self.pooled(kept.sum(-2) / _count(present))
        return torch.as_tensor(self.value(functional.gelu(pooled)).squeeze(-1))


def frozen_head(critic: Critic, embedded: Tensor, mixtures: Tensor, present: Tensor) -> Tensor:
    """Values whose gradient reaches the mixtures, and neither the critic nor its view of the state."""
    parameters: Mapping[str, Tensor] = {name: one.detach() for name, one in critic.head.named_parameters()}
    found = torch.func.functional_call(critic.head, dict(parameters), (embedded.detach(), mixtures, present))
    return torch.as_tensor(found)


def _count(present: Tensor) -> Tensor:
    return present.sum(-1)[:, None, None, None]
