"""What ``python -m strategies.agent`` is asked for and what it answers: records only, no torch.

A request comes as JSON on stdin. Each line of stdout is a :class:`Report` or, last, a result; an error is one line on
stderr and exit code 65.
"""

from __future__ import annotations

from math import comb
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, TypeAdapter, model_validator

from strategies import defaults
from strategies.agent.proposals import constants
from strategies.agent.trajectories import TrajectoryDomain
from strategies.contract.regmix import LEAST_RUNS
from strategies.settings import Closed
from strategies.settings.agent import (
    REPLAY,
    AgentSettings,
    LearningSettings,
    ProposalSettings,
    ProxySettings,
    parameters,
)

TOKENS_PER_S = 12_000
"""Of the default proxy on one core, as measured; evaluating a token costs a third of training on it."""
UPDATES_PER_S = 1.0
"""Of conservative Q-learning with the default agent on one core, as measured."""
MOST_CHARACTERS = 200
"""Of a domain's name: a stream's domains are called by what a column holds."""
SEEDS = tuple(range(1, defaults.SEEDS + 1))


def _printable(name: str) -> str:
    if not (name.strip() and name.isprintable() and len(name) <= MOST_CHARACTERS):
        raise ValueError(f"a domain's name is printable text of 1 to {MOST_CHARACTERS} characters")
    return name


class DomainFile(Closed):
    """One domain's text: JSONL with a column ``text``, or plain text whose documents are parted by blank lines."""

    name: Annotated[str, AfterValidator(_printable)]
    path: str
    target: bool = False
    """What training is for, a new domain; all others are old and must not be forgotten."""


class _OnDomains(Closed):
    """What is asked of some domains."""

    domains: tuple[DomainFile, ...]

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if len(self.domains) < 2:
            raise ValueError("one domain alone cannot be mixed; name two or more")
        names = [one.name for one in self.domains]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two domains are called {twice[0]}; give each a name of its own")
        return self


def _enough(runs: int) -> int:
    if 0 < runs < LEAST_RUNS:
        raise ValueError(f"{runs} tiny runs are too few to fit; ask for {LEAST_RUNS} or more, or 0 for none")
    return runs


Runs = Annotated[int, Field(ge=0), AfterValidator(_enough)]
"""Tiny runs of RegMix; 0: without it."""


class Collect(_OnDomains):
    """Runs on the mixtures of ``proposals``; ``out`` has them one a line, and goes on where it was left."""

    kind: Literal["collect"] = "collect"
    out: str
    proxy: ProxySettings = ProxySettings()
    proposals: ProposalSettings = ProposalSettings()
    regmix_runs: Runs = defaults.REGMIX_RUNS
    """Its optimum is one of the constant mixtures."""
    regmix_tokens: int = Field(defaults.REGMIX_TOKENS, ge=64)


class Teach(Closed):
    """An agent taught from the trajectories of files or of folders that were collected."""

    kind: Literal["train"] = "train"
    trajectories: tuple[str, ...] = Field(min_length=1)
    out: str
    agent: AgentSettings = AgentSettings()
    learning: LearningSettings = LearningSettings()


class Evaluate(_OnDomains):
    """Ways to choose mixtures, compared at equal tokens."""

    kind: Literal["evaluate"] = "evaluate"
    agent: str | None = None
    out: str | None = None
    """Folder that finished runs are kept in: a comparison goes on there, or is taken up with another agent."""
    proxy: ProxySettings = ProxySettings()
    seeds: tuple[int, ...] = SEEDS
    regmix_runs: Runs = defaults.REGMIX_RUNS
    """They come on top of the compared tokens."""
    regmix_tokens: int = Field(defaults.REGMIX_TOKENS, ge=64)
    eta: float = Field(defaults.ETA, gt=0, allow_inf_nan=False)
    """How strongly Skill-It's weights follow losses."""


class Graph(_OnDomains):
    """Which domain helps which, for Skill-It."""

    kind: Literal["graph"] = "graph"
    proxy: ProxySettings = ProxySettings(steps=defaults.GRAPH_STEPS)
    seeds: tuple[int, ...] = Field(SEEDS, min_length=1)
    weight: float | None = Field(defaults.EDGE, gt=0)
    """Of every edge but a domain's own, which is 1; None: the relative fall of the loss."""


Asked = Collect | Teach | Evaluate | Graph
Request = Annotated[Asked, Field(discriminator="kind")]
REQUEST: TypeAdapter[Asked] = TypeAdapter(Request)


class Report(Closed):
    """How far it is."""

    text: str
    step: int
    steps: int


class Estimate(Closed):
    """What a request costs on one core of the machine that the rates were measured on."""

    runs: int
    tokens: int
    updates: int
    cpu_hours: float


def estimate(request: Asked) -> Estimate:
    """The cost of a request, from the measured rates; nothing is read."""
    if isinstance(request, Teach):
        updates = request.learning.warm_steps + request.learning.steps
        return Estimate(runs=0, tokens=0, updates=updates, cpu_hours=round(updates / UPDATES_PER_S / 3600, 3))
    proxy, count = request.proxy, len(request.domains)
    per_s = TOKENS_PER_S / _slower(proxy)
    a_run = proxy.steps * proxy.step_tokens
    measured = (proxy.steps + 1) * count * proxy.eval_tokens / 3
    runs, further = _runs(request)
    start = proxy.initial_steps * proxy.step_tokens
    tokens = runs * a_run + further + start
    return Estimate(runs=runs, tokens=tokens, updates=0, cpu_hours=round((tokens + runs * measured) / per_s / 3600, 3))


def _slower(proxy: ProxySettings) -> float:
    """Time a token over the default proxy's: as measured, two thirds of that do not depend on the model's size."""
    return (2 + _weights(proxy) / _weights(ProxySettings())) / 3


def _weights(proxy: ProxySettings) -> int:
    """All parameters: the embeddings are the output layer too, so that every token is multiplied by them."""
    return parameters(proxy.hidden, proxy.layers) + proxy.vocabulary * proxy.hidden


def _runs(request: Collect | Evaluate | Graph) -> tuple[int, int]:
    """Runs of all steps, and the tokens of RegMix's tiny ones; a comparison is also with Skill-It."""
    if isinstance(request, Graph):
        return comb(len(request.domains) + 1, 2) * len(request.seeds), 0
    if isinstance(request, Collect):
        return request.proposals.trajectories, request.regmix_runs * request.regmix_tokens
    domains = [TrajectoryDomain(name=str(at), new=one.target, prior=0) for at, one in enumerate(request.domains)]
    policies = len(constants(domains, REPLAY)) + 1 + (request.regmix_runs > 0) + (request.agent is not None)
    return policies * len(request.seeds), request.regmix_runs * request.regmix_tokens


class CollectionCard(Closed):
    """``collection.json``: what the trajectories beside it were made of; a collection goes on only with the same."""

    format: Literal[1] = 1
    request: Collect
    data: dict[str, str]
    """Domain -> sha256 of its file."""
    versions: dict[str, str]
