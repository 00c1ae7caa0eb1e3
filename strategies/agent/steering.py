"""A taught agent in a training run: its proposals within limits, and the guard of METHODS 4.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from strategies.agent.folder import fingerprint
from strategies.agent.policy import Agent
from strategies.agent.proposals import constants
from strategies.agent.trajectories import Trajectory, TrajectoryHeader, parse
from strategies.errors import BadPlan, BadState
from strategies.mixing.simplex import Guard
from strategies.parts import AgentReweighting
from strategies.settings import Json

GUARD_REPLAY = (0.05, 0.25)
"""Shares of the constant replay that the guard compares with (METHODS 4.1)."""


class Guarded:
    """Takes the agent's mixture, unless a constant one promises more for ``patience`` steps in a row.

    What a mixture promises is the agent's own critic's estimate; the constant ones are uniform, prior, replay, and
    those ``given``, such as RegMix's. Mixtures are raw: limits are the caller's.
    """

    def __init__(
        self,
        agent: Agent,
        header: TrajectoryHeader,
        *,
        patience: int = 3,
        given: Mapping[str, Sequence[float]] | None = None,
    ) -> None:
        self._agent = agent
        self._names = header.names
        self._constants = constants(header.domains, GUARD_REPLAY, given)
        mixtures = {name: self.named(mixture) for name, mixture in self._constants.items()}
        self.guard = Guard(mixtures, patience=patience)

    def next(self, history: Trajectory) -> dict[str, float]:
        """The mixture for the step after ``history``; histories are shown in turn."""
        proposed = self._agent.next(history)
        references = {name: self._agent.value(history, mixture) for name, mixture in self._constants.items()}
        constant = self.guard.check(self._agent.value(history, proposed), references)
        return self.named(proposed) if constant is None else constant

    def named(self, mixture: Sequence[float]) -> dict[str, float]:
        """Weights by domain."""
        return dict(zip(self._names, mixture, strict=True))


class Steering:
    """Re-weights a run as a :class:`Guarded` agent says; ``header.total`` is how many mixtures it is planned for.

    Raises:
        BadState: the folder no longer holds the agent that the plan was made with.
    """

    def __init__(self, settings: AgentReweighting, header: TrajectoryHeader) -> None:
        folder = Path(settings.folder)
        if fingerprint(folder) != settings.sha256:
            raise BadState(f"{folder} holds another agent than the plan was made with; ask for the retrain again")
        self._header = header
        given = {"regmix": [settings.found[name] for name in header.names]} if settings.found else {}
        self._guarded = Guarded(Agent.load(folder), header, patience=settings.patience, given=given)
        self._history: Trajectory | None = None

    def update(self, step: int, before: Mapping[str, float], losses: Mapping[str, float]) -> dict[str, float]:
        """The mixture after ``step``, at which the domains had ``losses``; ``before`` was in force until then."""
        if set(losses) != set(self._header.names):
            raise BadPlan("the agent needs the loss of every domain; give each an eval set")
        history = self._history = self._after(before, losses)
        return dict(before) if history.complete else self._guarded.next(history)

    def state_dict(self) -> Json:
        history = None if self._history is None else self._history.model_dump(mode="json")
        return {"history": history, "guard": self._guarded.guard.state_dict()}

    def load_state_dict(self, state: Json) -> None:
        """Go on from :meth:`state_dict`."""
        found = state["history"]
        self._history = None if found is None else parse(found, where="the checkpoint")
        self._guarded.guard.load_state_dict(state["guard"])

    def _after(self, before: Mapping[str, float], losses: Mapping[str, float]) -> Trajectory:
        seen = tuple(losses[name] for name in self._header.names)
        if self._history is None:
            return self._header.begun(seen)
        return self._history.after(weights=[before[name] for name in self._header.names], losses=seen, tokens=0)
