"""Collect, train, evaluate: what ``python -m strategies.agent`` carries out.

The same collection or training into the same folder goes on where it was interrupted, and so does a comparison that
names a folder.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from strategies.agent.environment import ProxyEnvironment
from strategies.agent.evaluate import Summary, baselines, compare
from strategies.agent.folder import CARD as AGENT_CARD
from strategies.agent.folder import WEIGHTS, fingerprint
from strategies.agent.graph import skill_graph
from strategies.agent.learning import Learner
from strategies.agent.learning import train as taught
from strategies.agent.policy import Agent
from strategies.agent.proposals import propose
from strategies.agent.requests import Collect, Evaluate, Graph, Provenance, Report, Teach, estimate
from strategies.agent.rollout import Chooser, Mixture, constant, rollout, scripted
from strategies.agent.steering import Guarded
from strategies.agent.texts import hashes, read_domains
from strategies.agent.trajectories import Trajectory, append, read, versions
from strategies.contract.regmix import FitSettings, MixtureSettings, ProxyRun
from strategies.errors import BadState, Refused
from strategies.fitting.regmix import fit
from strategies.inference.precision import device_for
from strategies.mixing.regmix import candidates
from strategies.mixing.simplex import caps, within
from strategies.mixing.skill_it import SkillIt, identity
from strategies.parts import SkillItReweighting
from strategies.settings import Closed, Json
from strategies.settings.agent import ProxySettings
from strategies.settings.mixing import MixtureLimits
from strategies.training.checkpoint import CheckpointStore

Read = TypeVar("Read")
RUNS = "trajectories.jsonl"
CARD = "collection.json"
START = "start.safetensors"
OPTIMUM = "regmix.json"
COMPARISON = "comparison.json"
UNFINISHED = "unfinished"
SAVE_EVERY = 25
"""Updates of an agent that an interruption may cost."""
Tell = Callable[[Report], None]
Keep = Callable[[str, Callable[[], Trajectory]], Trajectory]
"""The run of that name, which may have been kept, or a new one."""


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


def collect(request: Collect, tell: Tell) -> Json:
    """Make the trajectories that ``out`` does not have yet."""
    out = Path(request.out)
    out.mkdir(parents=True, exist_ok=True)
    card = _card(out, request)
    done, wanted = _whole(out / RUNS), request.proposals.trajectories
    if done >= wanted:
        return _made(request, 0, 0.0)
    domains = read_domains(request.domains, vocabulary=request.proxy.vocabulary, row=request.proxy.length)
    tell(Report(text="making the shared start", step=done, steps=wanted))
    start = _read(out / START, load_file) if (out / START).is_file() else None
    proxy = request.proxy.model_copy(update={"steps": request.proposals.steps})
    environment = ProxyEnvironment(_name(out), domains, proxy, device=device_for("auto"), start=start)
    _write(out / CARD, lambda path: path.write_text(card.model_dump_json(indent=1) + "\n"))
    if start is None:
        _write(out / START, lambda path: save_file(environment.initial, path))
    optima = [_optimum(out / OPTIMUM, environment, request, tell)] if request.regmix_runs else []
    proposals = propose(environment.domains, request.proposals, optima=optima)
    for number, proposal in enumerate(proposals[done:], start=done):
        run = rollout(environment, scripted(proposal.mixtures), seed=request.proposals.seed + number)
        append(out / RUNS, [run])
        tell(Report(text=f"collecting {proposal.name}", step=number + 1, steps=len(proposals)))
    return _made(request, wanted - done, environment.tokens_per_s)


def _optimum(path: Path, environment: ProxyEnvironment, request: Collect, tell: Tell) -> tuple[float, ...]:
    """RegMix's mixture, found once."""
    if not path.is_file():
        found = _regmix(environment, request, tell, lambda _, make: make())
        _write(path, lambda path: path.write_text(json.dumps(list(found))))
    return _read(path, lambda path: tuple(map(float, json.loads(path.read_text()))))


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file as a whole or not at all."""
    part = path.with_suffix(".part")
    write(part)
    part.replace(path)


def _read(path: Path, read_it: Callable[[Path], Read]) -> Read:
    try:
        return read_it(path)
    except (SafetensorError, ValueError, TypeError, StopIteration) as error:
        raise BadState(f"{path} cannot be read; remove it, and it is made anew") from error


def _made(request: Collect, new: int, tokens_per_s: float) -> Json:
    return {"trajectories": request.proposals.trajectories, "made": new, "out": request.out,
            "tokens_per_s": round(tokens_per_s, 1)}  # fmt: skip


def teach(request: Teach, tell: Tell) -> Json:
    """Fit an agent to the trajectories and save it; goes on where an interruption left it.

    Raises:
        Refused: ``out`` holds an unfinished agent of other trajectories or settings.
    """
    trajectories = [run for path in request.trajectories for run in _trajectories(Path(path))]
    out = Path(request.out)
    learner = Learner(trajectories, request.agent, request.learning, device=device_for("auto"))
    store = CheckpointStore(
        out / UNFINISHED,
        fingerprint="agent",
        say=lambda said: tell(Report(text=said, step=learner.done, steps=learner.total)),
    )
    _resume(learner, store)
    last: dict[str, float] = {}
    for losses in taught(learner):
        last = losses
        if learner.done % SAVE_EVERY == 0 and learner.done < learner.total:
            store.save(learner.checkpoint())
        tell(Report(text="training the agent", step=learner.done, steps=learner.total))
    store.wait()
    Agent.of(learner).save(out)
    size = sum((out / name).stat().st_size for name in (AGENT_CARD, WEIGHTS))
    shutil.rmtree(out / UNFINISHED, ignore_errors=True)
    return {"agent": request.out, "bytes": size, "lessons": learner.lessons.model_dump(mode="json"), "last": last}


def _resume(learner: Learner, store: CheckpointStore) -> None:
    found = store.load()
    if found is None:
        return
    try:
        learner.restore(found)
    except BadState as error:
        raise Refused(f"{error}: remove {store.folder}, or train into a new folder") from error


def evaluate(request: Evaluate, tell: Tell) -> Json:
    """The table of all ways to choose, the greatest fall first."""
    agent = None if request.agent is None else Agent.load(Path(request.agent))
    domains = read_domains(request.domains, vocabulary=request.proxy.vocabulary, row=request.proxy.length)
    tell(Report(text="making the shared start", step=0, steps=0))
    environment = ProxyEnvironment("evaluation", domains, request.proxy, device=device_for("auto"))
    kept = Kept(request)
    given: dict[str, Mixture] = {}
    if request.regmix_runs:
        given["regmix"] = _regmix(environment, request, tell, kept.run)
    constants = baselines(environment.domains, given)
    policies = {**constants, "skill-it": _skill_it(environment, request)}
    if agent is not None:
        policies["agent"] = _steered(agent, environment, given)
    total = len(policies) * len(request.seeds) * request.proxy.steps
    counted = _counted(policies, tell, total)

    def run(name: str, choose: Chooser, seed: int) -> Trajectory:
        return kept.run(f"{_key(name, request, given)}-{seed}", lambda: rollout(environment, choose, seed=seed))

    found = compare(environment, counted, seeds=request.seeds, run=run)
    rows = found.summaries()
    guard = next(row for row in rows if row.policy in constants)
    falls = {(one.policy, one.seed): one.fall for one in found.outcomes}
    own = next((row for row in rows if row.policy == "agent"), None)
    wins = sum(falls["agent", seed] > falls[guard.policy, seed] for seed in request.seeds) if own else 0
    return Verdict(
        rows=rows,
        guard=guard.policy,
        agent_minus_guard=None if own is None else own.fall - guard.fall,
        wins=wins,
        facts={"seeds": list(request.seeds), "tokens_a_run": found.outcomes[0].tokens, "data": hashes(request.domains),
               "versions": versions()},
    ).model_dump(mode="json")  # fmt: skip


def graph(request: Graph, tell: Tell) -> Json:
    """Skill-It's graph, as its settings take it."""
    domains = read_domains(request.domains, vocabulary=request.proxy.vocabulary, row=request.proxy.length)
    tell(Report(text="making the shared start", step=0, steps=0))
    environment = ProxyEnvironment("graph", domains, request.proxy, device=device_for("auto"))
    total = estimate(request).runs
    found = skill_graph(
        environment,
        seeds=request.seeds,
        weight=request.weight,
        done=lambda count: tell(Report(text="testing edges", step=count, steps=total)),
    )
    return {"graph": found, "facts": {"data": hashes(request.domains), "versions": versions()}}


def _card(out: Path, request: Collect) -> Provenance:
    """The collection's card, that of an earlier call if there was one; another one's is refused."""
    card = Provenance(request=request, data=hashes(request.domains), versions=versions())
    path = out / CARD
    if not path.is_file():
        return card
    try:
        found = Provenance.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise BadState(f"{path} cannot be read; collect into a new folder") from error
    if _question(found) != _question(card):
        raise Refused(f"{out} holds a collection of other data or settings; collect into a new folder")
    return found


def _question(card: Provenance) -> Json:
    """What makes two collections one: settings, domains and the bytes of their files, wherever they lie."""
    targets = [domain.target for domain in card.request.domains]
    settings = card.request.model_dump(mode="json", include={"proxy", "proposals", "regmix_runs", "regmix_tokens"})
    return {**settings, "data": card.data, "targets": targets}


def _whole(path: Path) -> int:
    """Trajectories that are there; a last line that was torn by an interruption goes."""
    if not path.is_file():
        return 0
    text = path.read_bytes()
    if not text.endswith(b"\n"):
        path.write_bytes(text[: text.rfind(b"\n") + 1])
    return sum(1 for _ in read(path))


def _trajectories(path: Path) -> Iterator[Trajectory]:
    file = path / RUNS if path.is_dir() else path
    if not file.is_file():
        raise Refused(f"there are no trajectories at {file}; `rekindle mixing collect` makes some")
    yield from read(file)


def _name(out: Path) -> str:
    return f"collection/{out.resolve().name}"


class Kept:
    """Runs of a comparison that are kept, one file each, where the request names a folder.

    Raises:
        Refused: the folder holds runs of another comparison.
    """

    def __init__(self, request: Evaluate) -> None:
        self._folder = None if request.out is None else Path(request.out)
        if self._folder is None:
            return
        asked = {
            **request.model_dump(mode="json", exclude={"agent", "out", "domains"}),
            "data": hashes(request.domains),
        }
        asked["targets"] = [domain.target for domain in request.domains]
        self._folder.mkdir(parents=True, exist_ok=True)
        card = self._folder / COMPARISON
        if card.is_file() and card.read_text() != json.dumps(asked, indent=1) + "\n":
            raise Refused(f"{request.out} holds runs of other data or settings; compare in a new folder")
        _write(card, lambda path: path.write_text(json.dumps(asked, indent=1) + "\n"))

    def run(self, key: str, make: Callable[[], Trajectory]) -> Trajectory:
        """The kept run of that name, or a new one."""
        if self._folder is None:
            return make()
        path = self._folder / f"{key}.jsonl"
        if not path.is_file():
            path.with_suffix(".part").unlink(missing_ok=True)
            _write(path, lambda part: append(part, [make()]))
        return _read(path, lambda path: next(read(path)))


def _key(name: str, request: Evaluate, given: Mapping[str, Mixture]) -> str:
    """Names a way to choose by what it follows from: which agent it is, which mixture was found."""
    if name == "agent":
        return f"agent-{fingerprint(Path(str(request.agent)))[:12]}"
    if name in given:
        return f"{name}-{_digest(given[name])}"
    return name


def _digest(mixture: Mixture) -> str:
    return hashlib.sha256(json.dumps(list(mixture)).encode()).hexdigest()[:12]


def _regmix(environment: ProxyEnvironment, request: Collect | Evaluate, tell: Tell, kept: Keep) -> Mixture:
    """RegMix's mixture from tiny runs on the same domains, under the same start."""
    settings: ProxySettings = request.proxy.model_copy(update={"steps": 1, "step_tokens": request.regmix_tokens})
    tiny = environment.under(settings)
    names = [domain.name for domain in tiny.domains]
    prior = {domain.name: domain.prior for domain in tiny.domains}
    runs = []
    for at, weights in enumerate(candidates(prior, MixtureSettings(runs=request.regmix_runs), seed="regmix")):
        mixture = [weights[name] for name in names]
        key = f"regmix-tiny-{at}-{_digest(mixture)}"
        run = kept(key, partial(rollout, tiny, constant(mixture), seed=settings.seed))
        runs.append(ProxyRun(weights=weights, losses=dict(zip(names, run.steps[-1].losses, strict=True))))
        tell(Report(text="regmix's tiny runs", step=len(runs), steps=request.regmix_runs))
    sides = {side: tuple(domain.name for domain in tiny.domains if domain.target is side) for side in (True, False)}
    found = fit(
        runs,
        FitSettings(
            prior=prior,
            tokens=prior,
            budget=1.0,
            old=sides[False],
            new=sides[True],
            old_weight=0.5 if all(sides.values()) else float(bool(sides[False])),
        ),
    )
    return [float(found.mixture[name]) for name in names]


def _skill_it(environment: ProxyEnvironment, request: Evaluate) -> Chooser:
    """Skill-It from the prior, each domain helping itself alone; a new window for every run."""
    names = [domain.name for domain in environment.domains]
    prior = environment.head(0).prior
    settings = SkillItReweighting(eta=request.eta, graph=identity(names))

    def choose(history: Trajectory) -> Mixture:
        rule = SkillIt(settings, dict(zip(names, prior, strict=True)))
        found = rule.update(0, {}, dict(zip(names, history.start, strict=True)))
        for done in history.steps[-settings.window :]:
            found = rule.update(done.step, {}, dict(zip(names, done.losses, strict=True)))
        return _limited(environment, history, found)

    return choose


def _steered(agent: Agent, environment: ProxyEnvironment, given: Mapping[str, Mixture]) -> Chooser:
    """The agent within limits, under its guard; a new guard for every run."""
    state: dict[str, Guarded] = {}

    def choose(history: Trajectory) -> Mixture:
        if not history.steps:
            state["guarded"] = Guarded(agent, environment.head(0), given=given)
        return _limited(environment, history, state["guarded"].next(history))

    return choose


def _limited(environment: ProxyEnvironment, history: Trajectory, proposed: Mapping[str, float]) -> Mixture:
    """The projection of METHODS 4.1 from the mixture before."""
    before = history.steps[-1].weights if history.steps else history.prior
    limits = MixtureLimits()
    most = _most(environment, history, limits.epochs_max)
    found = within(limits, dict(zip(history.names, before, strict=True)), proposed, most=most)
    return [found[name] for name in history.names]


def _most(environment: ProxyEnvironment, history: Trajectory, epochs_max: float | None) -> dict[str, float] | None:
    """Greatest weight of every domain under which the rest of the run repeats none too often."""
    if epochs_max is None:
        return None
    taken = dict.fromkeys(history.names, 0.0)
    for done in history.steps:
        for name, weight in zip(history.names, done.weights, strict=True):
            taken[name] += weight * done.tokens
    left = {name: epochs_max * count - taken[name] for name, count in environment.tokens.items()}
    return caps(left, environment.settings.step_tokens * (history.total - len(history.steps)))


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
