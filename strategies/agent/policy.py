"""A taught agent: the next mixture from a run's history, and its file (safetensors and JSON)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from strategies.agent.dataset import Lessons
from strategies.agent.features import Standardisation, tokens
from strategies.agent.folder import CARD, WEIGHTS, read_card, read_weights
from strategies.agent.learning import Learner
from strategies.agent.model import Policy, Twins
from strategies.agent.trajectories import Trajectory
from strategies.errors import BadPlan, BadState
from strategies.libraries import library_versions
from strategies.settings import Closed
from strategies.settings.agent import AgentSettings, LearningSettings


class Origin(Closed):
    """How an agent came to be."""

    lessons: Lessons
    learning: LearningSettings
    updates: int
    versions: dict[str, str]


class Card(Closed):
    """``agent.json``."""

    format: Literal[1] = 1
    settings: AgentSettings
    standardisation: Standardisation
    origin: Origin
    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class Agent:
    """Proposes mixtures; depends on a history by value alone, so nothing of it has to be kept between calls.

    Its mixtures are raw: floors, caps and the limit of change a step are the caller's.
    """

    def __init__(
        self,
        *,
        settings: AgentSettings,
        standardisation: Standardisation,
        origin: Origin,
        tensors: Mapping[str, Tensor],
    ) -> None:
        self.settings, self.standardisation, self.origin = settings, standardisation, origin
        self.policy, self.critics = _networks(settings)
        for module, name in ((self.policy, "policy"), (self.critics, "critics")):
            module.load_state_dict(_under(tensors, name))
            module.requires_grad_(requires_grad=False)

    @classmethod
    def of(cls, learner: Learner) -> Agent:
        """What ``learner`` has learned so far."""
        groups = learner.checkpoint().groups
        return cls(
            settings=learner.agent,
            standardisation=learner.standardisation,
            origin=Origin(
                lessons=learner.lessons, learning=learner.learning, updates=learner.done, versions=library_versions()
            ),
            tensors={f"{name}.{key}": one for name in ("policy", "critics") for key, one in groups[name].items()},
        )

    @torch.no_grad()
    def next(self, history: Trajectory) -> tuple[float, ...]:
        """The mean mixture for the step after ``history``, which may be empty.

        Raises:
            BadPlan: every planned step has been taken.
        """
        states, present = self._state(history)
        mixture = self.policy(states, present)[0, -1].double().exp()
        return tuple((mixture / mixture.sum()).tolist())

    @torch.no_grad()
    def value(self, history: Trajectory, mixture: Sequence[float]) -> float:
        """The lesser critic's estimate of the discounted return of taking ``mixture`` next and going on as the agent.

        In the standardised units of :func:`strategies.agent.features.rewards`, so only differences mean something.
        """
        states, present = self._state(history)
        mixtures = torch.tensor(mixture, dtype=torch.float32).expand(1, states.shape[1], 1, -1)
        return float(self.critics(states, mixtures, present)[0, -1, 0])

    def save(self, folder: Path) -> None:
        """Write ``agent.safetensors``, then ``agent.json``, which names its hash."""
        modules = {"policy": self.policy, "critics": self.critics}
        weights = save({f"{name}.{key}": one for name, net in modules.items() for key, one in net.state_dict().items()})
        card = Card(
            settings=self.settings,
            standardisation=self.standardisation,
            origin=self.origin,
            weights_sha256=hashlib.sha256(weights).hexdigest(),
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / WEIGHTS).write_bytes(weights)
        (folder / CARD).write_text(card.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Agent:
        """Read what :meth:`save` wrote.

        Raises:
            BadState: files are missing, changed, of a newer format, or hold keys that this version does not know.
        """
        card = _card(folder)
        weights = read_weights(folder, card.weights_sha256)
        try:
            return cls(
                settings=card.settings,
                standardisation=card.standardisation,
                origin=card.origin,
                tensors=load(weights),
            )
        except (SafetensorError, RuntimeError) as error:
            raise BadState(f"the agent's weights cannot be read: {error}; fit the agent anew") from error

    def _state(self, history: Trajectory) -> tuple[Tensor, Tensor]:
        if history.complete:
            raise BadPlan(f"all {history.total} re-weighting steps have been taken: there is no next mixture")
        seen = tokens(history, self.standardisation)[-self.settings.window :]
        return torch.from_numpy(seen).float()[None], torch.ones(1, len(history.domains), dtype=torch.bool)


def _networks(settings: AgentSettings) -> tuple[Policy, Twins]:
    with torch.random.fork_rng(devices=[]):
        return Policy(settings), Twins(settings)


def _under(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): one for key, one in tensors.items() if key.startswith(f"{name}.")}


def _card(folder: Path) -> Card:
    value, _ = read_card(folder)
    try:
        return Card.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadState(f"{CARD} is not an agent's: {place}: {first['msg']}; fit the agent anew") from error
