"""A taught agent as a re-weighting of a training run, with the guard of METHODS.md section 4.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from strategies.agent.policy import Agent
from strategies.agent.proposals import replay
from strategies.agent.trajectories import Domain, Head, Trajectory, parse
from strategies.errors import BadPlan
from strategies.mixing.simplex import Guard
from strategies.parts import AgentReweighting
from strategies.settings import Json

REPLAY = (0.05, 0.25)


class Steering:
    """Shows the agent the run's history and takes its mixture, unless a constant one promises more for too long.

    What a mixture promises is the agent's own critic's estimate; the constant ones are uniform, prior and replay.
    ``total`` is how many mixtures will be asked for.
    """

    def __init__(self, settings: AgentReweighting, *, environment: str, total: int) -> None:
        self._agent = Agent.load(Path(settings.folder))
        prior, targets = settings.prior, set(settings.targets)
        domains = tuple(Domain(name=name, target=name in targets, prior=share) for name, share in prior.items())
        self._head = Head(environment=environment, domains=domains, total=total)
        self._names = self._head.names
        self._constants = _constants(self._head)
        self._guard = Guard({name: self._named(mixture) for name, mixture in self._constants.items()},
                            patience=settings.patience)  # fmt: skip
        self._history: Trajectory | None = None

    def update(self, step: int, before: Mapping[str, float], losses: Mapping[str, float]) -> dict[str, float]:
        """The mixture after ``step``, at which the domains had ``losses``; ``before`` was in force until then."""
        if set(losses) != set(self._names):
            raise BadPlan("the agent needs the loss of every domain; give each an eval set")
        history = self._history = self._after(before, losses)
        if history.complete:
            return dict(before)
        proposed = self._agent.next(history)
        references = {name: self._agent.value(history, mixture) for name, mixture in self._constants.items()}
        constant = self._guard.check(self._agent.value(history, proposed), references)
        return self._named(proposed) if constant is None else constant

    def state_dict(self) -> Json:
        history = None if self._history is None else self._history.model_dump(mode="json")
        return {"history": history, "guard": self._guard.state_dict()}

    def load_state_dict(self, state: Json) -> None:
        """Go on from :meth:`state_dict`."""
        found = state["history"]
        self._history = None if found is None else parse(found, where="the checkpoint")
        self._guard.load_state_dict(state["guard"])

    def _after(self, before: Mapping[str, float], losses: Mapping[str, float]) -> Trajectory:
        seen = tuple(losses[name] for name in self._names)
        if self._history is None:
            return Trajectory(**{name: getattr(self._head, name) for name in Head.model_fields}, start=seen)
        return self._history.after(weights=tuple(before[name] for name in self._names), losses=seen, tokens=0)

    def _named(self, mixture: Sequence[float]) -> dict[str, float]:
        return dict(zip(self._names, mixture, strict=True))


def _constants(head: Head) -> dict[str, tuple[float, ...]]:
    count = len(head.domains)
    found = {"uniform": (1 / count,) * count, "prior": head.prior}
    if len({domain.target for domain in head.domains}) == 2:
        found |= {f"replay-{share:g}": replay(head.domains, share) for share in REPLAY}
    return found
