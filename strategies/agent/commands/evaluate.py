"""``rekindle mixing evaluate``: compare an agent with other ways to choose mixtures."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from storage.files import write_atomic
from strategies.agent.choosers import skill_it, steered
from strategies.agent.commands.kept import read_kept
from strategies.agent.commands.proxies import Tell, digest, environment_of, regmix_mixture
from strategies.agent.comparison import Comparison, Summary, baselines, compare
from strategies.agent.folder import fingerprint
from strategies.agent.policy import Agent
from strategies.agent.requests import Evaluate, Report
from strategies.agent.rollout import Chooser, Mixture, rollout
from strategies.agent.texts import hashes
from strategies.agent.trajectories import Trajectory, line, read
from strategies.errors import Refused
from strategies.libraries import library_versions
from strategies.settings import Closed, Json

CARD = "comparison.json"


class Verdict(Closed):
    """The comparison, and whether the agent beat the best constant mixture."""

    rows: tuple[Summary, ...]
    guard: str
    """The constant mixture under which losses fell most. The guard of a run has less replay among its own, and goes by
    what the agent's critic estimates."""
    agent_minus_guard: float | None
    """Difference of their falls; None without an agent."""
    wins: int
    """Seeds under which the agent's fall was the greater one."""
    facts: Json


def evaluate(request: Evaluate, tell: Tell) -> Json:
    """The table of all ways to choose, the greatest fall first."""
    agent = None if request.agent is None else Agent.load(Path(request.agent))
    environment = environment_of(request.domains, request.proxy, tell, name="evaluation")
    kept = KeptRuns(request)
    given = {"regmix": regmix_mixture(environment, request, tell, kept.run)} if request.regmix_runs else {}
    constants = baselines(environment.domains, given)
    policies = {**constants, "skill-it": skill_it(environment, eta=request.eta)}
    if agent is not None:
        policies["agent"] = steered(agent, environment, given)

    def run(name: str, choose: Chooser, seed: int) -> Trajectory:
        return kept.run(f"{_key(name, request, given)}-{seed}", lambda: rollout(environment, choose, seed=seed))

    total = len(policies) * len(request.seeds) * request.proxy.steps
    found = compare(environment, _counted(policies, tell, total), seeds=request.seeds, run=run)
    return _verdict(request, found, constants).model_dump(mode="json")


class KeptRuns:
    """Runs of a comparison that are kept, one file each, where the request names a folder.

    Raises:
        Refused: the folder holds runs of another comparison.
    """

    def __init__(self, request: Evaluate) -> None:
        self._folder = None if request.out is None else Path(request.out)
        if self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        card, asked = self._folder / CARD, json.dumps(_question(request), indent=1) + "\n"
        if card.is_file() and card.read_text() != asked:
            raise Refused(f"{request.out} holds runs of other data or settings; compare in a new folder")
        write_atomic(card, asked.encode())

    def run(self, key: str, make: Callable[[], Trajectory]) -> Trajectory:
        """The kept run of that name, or a new one."""
        if self._folder is None:
            return make()
        path = self._folder / f"{key}.jsonl"
        if not path.is_file():
            write_atomic(path, line(make()))
        return read_kept(path, lambda path: next(read(path)))


def _question(request: Evaluate) -> Json:
    """What makes two comparisons one, whichever agent is compared."""
    return {
        **request.model_dump(mode="json", exclude={"agent", "out", "domains"}),
        "data": hashes(request.domains),
        "targets": [domain.target for domain in request.domains],
    }


def _key(name: str, request: Evaluate, given: Mapping[str, Mixture]) -> str:
    """Names a way to choose by what it follows from: which agent it is, which mixture was found."""
    if name == "agent":
        return f"agent-{fingerprint(Path(str(request.agent)))[:12]}"
    if name in given:
        return f"{name}-{digest(given[name])}"
    return name


def _counted(policies: Mapping[str, Chooser], tell: Tell, total: int) -> dict[str, Chooser]:
    """The same ways to choose, each telling how far all of them are."""
    asked: list[None] = []

    def telling(name: str, choose: Chooser) -> Chooser:
        def counted(history: Trajectory) -> Mixture:
            asked.append(None)
            tell(Report(text=f"comparing {name}", step=len(asked), steps=total))
            return choose(history)

        return counted

    return {name: telling(name, choose) for name, choose in policies.items()}


def _verdict(request: Evaluate, found: Comparison, constants: Collection[str]) -> Verdict:
    rows = found.summaries()
    guard = next(row for row in rows if row.policy in constants)
    own = next((row for row in rows if row.policy == "agent"), None)
    return Verdict(
        rows=rows,
        guard=guard.policy,
        agent_minus_guard=None if own is None else own.fall - guard.fall,
        wins=_wins(found, guard.policy),
        facts={
            "seeds": list(request.seeds),
            "tokens_a_run": found.outcomes[0].tokens,
            "data": hashes(request.domains),
            "versions": library_versions(),
        },
    )


def _wins(found: Comparison, guard: str) -> int:
    """Seeds under which the agent's fall was the greater one."""
    falls = {(one.policy, one.seed): one.fall for one in found.outcomes}
    return sum(fall > falls[guard, seed] for (policy, seed), fall in falls.items() if policy == "agent")
