"""How a data mixing agent is built, taught and given runs to learn from (METHODS 4.1).

Records more than settings: each is written down whole beside what was made by it (in an agent's card, a collection's,
a plan), so that this can be loaded, gone on with and told from what other values made. Most fields are constants; each
class says which of them a user can set. The numbers are this project's own, as no code of the paper is public.
"""

from __future__ import annotations

from pydantic import Field, model_validator

from strategies import defaults
from strategies.defaults import ENOUGH
from strategies.settings import Closed

REPLAY = (0.05, 0.25, 0.5)
"""Shares of the constant replay that is collected and that an agent is compared with."""


def parameters(hidden: int, layers: int) -> int:
    """Parameters of a proxy beside its embeddings: attention, a network twice as wide, and norms."""
    return layers * (10 * hidden * hidden + 2 * hidden) + hidden


def check_size(*, hidden: int, layers: int, heads: int, max_parameters: int) -> None:
    """Refuse a proxy that cannot be made, or that is larger than it may be; raises ValueError."""
    if hidden % heads or (hidden // heads) % 2:
        raise ValueError(f"hidden must be a multiple of {2 * heads}, as each of {heads} heads takes an even part")
    if (size := parameters(hidden, layers)) > max_parameters:
        raise ValueError(
            f"the proxy has {size} parameters beside its embeddings, at most {max_parameters}: lower its width, or"
            " raise max_parameters"
        )


class AgentSettings(Closed):
    """The networks: one form for the policy and both critics, each with its own parameters. No field can be set."""

    width: int = Field(64, ge=4, description="size of a domain's vector")
    layers: int = Field(2, ge=1, description="layers of attention across domains and over steps")
    heads: int = Field(4, ge=1, description="attention heads")
    critic_width: int = Field(32, ge=4, description="size of a domain's vector where a critic joins state and action")
    window: int = Field(
        8, ge=1, description="re-weighting steps that the agent looks back on, the present one included"
    )
    concentration: float = Field(100.0, gt=0, description="kappa: mixtures are drawn from Dirichlet(kappa * mean)")

    @model_validator(mode="after")
    def _divides(self) -> AgentSettings:
        if self.width % self.heads:
            raise ValueError("width must be a multiple of heads")
        return self


class LearningSettings(Closed):
    """Supervised warm start, then conservative Q-learning.

    ``rekindle mixing train`` sets the updates of both, ``conservative`` and the seed.
    """

    warm_steps: int = Field(defaults.WARM_UPDATES, ge=0, description="updates of the supervised warm start")
    steps: int = Field(defaults.UPDATES, ge=0, description="updates of conservative Q-learning")
    batch: int = Field(256, ge=1, description="sub-sequences in one update")
    discount: float = Field(0.95, ge=0, le=1, description="gamma, of rewards and of returns-to-go")
    keep: float = Field(0.3, gt=0, le=1, description="share of steps kept for the warm start, per progress decile")
    proposals: int = Field(30, ge=3, multiple_of=3, description="mixtures a state is pressed down on; thirds by source")
    conservative: float = Field(
        defaults.CONSERVATIVE,
        ge=0,
        allow_inf_nan=False,
        description="beta at the first update of Q-learning, and at least",
    )
    tuning_rate: float = Field(
        0.05,
        ge=0,
        description="how fast beta falls back; it rises ten times as fast while proposals are valued above logs",
    )
    clone_start: float = Field(1.0, ge=0, description="lambda of cloning at the first update of Q-learning")
    clone_end: float = Field(0.1, ge=0, description="lambda of cloning at the last update")
    target_rate: float = Field(0.005, gt=0, le=1, description="tau: how fast target critics follow")
    critic_rate: float = Field(3e-4, gt=0, description="Adam's rate of the critics")
    actor_rate: float = Field(1e-4, gt=0, description="Adam's rate of the policy")
    strength: float = Field(16.0, gt=0, description="observations that the known loss statistics of a domain count for")
    seed: int = Field(defaults.SEED, ge=0, description="of weights, sub-sequences and proposals")


class ProposalSettings(Closed):
    """Which mixtures the runs that an agent learns from are given.

    ``rekindle mixing collect`` sets how many runs of how many steps, and the seed.
    """

    trajectories: int = Field(ENOUGH, ge=1, description="runs")
    steps: int = Field(defaults.STEPS, ge=1, description="re-weighting steps in a run")
    concentration_low: float = Field(0.1, gt=0, description="least c of the start point Dirichlet(c * prior)")
    concentration_high: float = Field(5.0, gt=0, description="greatest c; c is drawn log-uniformly")
    noise: float = Field(0.3, ge=0, description="deviation of the logarithmic noise from step to step")
    fresh: float = Field(0.1, ge=0, le=1, description="chance of a fresh Dirichlet draw instead")
    replay: tuple[float, ...] = Field(REPLAY, description="shares of constant replay")
    seed: int = Field(defaults.SEED, ge=0, description="of all draws")


class ProxySettings(Closed):
    """The small language model that mixtures are tried on.

    ``rekindle mixing`` sets its size (``hidden``, ``layers``, ``max_parameters``), its steps, their tokens and those of
    an evaluation; ``collect`` the seed too. A stream's RegMix search sets its size and the tokens of a run.
    """

    vocabulary: int = Field(2048, ge=8, description="most frequent tokens that keep an id of their own")
    hidden: int = Field(defaults.HIDDEN, ge=8, description="width of the model")
    layers: int = Field(defaults.LAYERS, ge=1, description="layers of the model")
    heads: int = Field(defaults.HEADS, ge=1, description="attention heads")
    max_parameters: int = Field(
        defaults.MAX_PARAMETERS,
        ge=1,
        description="most parameters beside the embeddings: what is tried so often must stay cheap",
    )
    length: int = Field(64, ge=2, description="tokens in a row")
    batch: int = Field(8, ge=1, description="rows in one optimizer step")
    step_tokens: int = Field(defaults.STEP_TOKENS, ge=1, description="training tokens in one re-weighting step")
    eval_tokens: int = Field(defaults.EVAL_TOKENS, ge=1, description="tokens a domain that every evaluation reads")
    steps: int = Field(defaults.STEPS, ge=1, description="re-weighting steps in a run")
    initial_steps: int = Field(40, ge=0, description="re-weighting steps on the sources that make the shared start")
    learning_rate: float = Field(3e-3, gt=0, description="peak rate of AdamW")
    min_learning_rate_ratio: float = Field(0.1, ge=0, le=1, description="final rate over peak rate")
    warmup: float = Field(0.05, ge=0, le=1, description="share of optimizer steps until the peak")
    weight_decay: float = Field(0.1, ge=0, description="decoupled, on matrices only")
    seed: int = Field(defaults.SEED, ge=0, description="of the shared start")

    @model_validator(mode="after")
    def _fits(self) -> ProxySettings:
        check_size(hidden=self.hidden, layers=self.layers, heads=self.heads, max_parameters=self.max_parameters)
        if self.step_tokens < self.batch * self.length:
            raise ValueError("step_tokens must hold at least one batch of rows")
        return self
