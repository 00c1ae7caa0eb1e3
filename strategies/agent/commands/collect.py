"""``rekindle mixing collect``: make the trajectories that an agent learns from."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save

from storage.files import write_atomic
from strategies.agent.commands.kept import read_kept
from strategies.agent.commands.proxies import Tell, environment_of, regmix_mixture
from strategies.agent.environment import ProxyEnvironment
from strategies.agent.proposals import Mixture, propose
from strategies.agent.requests import Collect, CollectionCard, Report
from strategies.agent.rollout import rollout, scripted
from strategies.agent.texts import hashes
from strategies.agent.trajectories import append, read
from strategies.errors import BadState, Refused
from strategies.libraries import library_versions
from strategies.settings import Json

RUNS = "trajectories.jsonl"
CARD = "collection.json"
START = "start.safetensors"
OPTIMUM = "regmix.json"


def collect(request: Collect, tell: Tell) -> Json:
    """Make the trajectories that ``out`` does not have yet."""
    out = Path(request.out)
    out.mkdir(parents=True, exist_ok=True)
    card = _card(out, request)
    done, wanted = _whole_lines(out / RUNS), request.proposals.trajectories
    if done >= wanted:
        return _made(request, 0, 0.0)
    environment = _environment(out, request, card, tell)
    optima = [_optimum(out / OPTIMUM, environment, request, tell)] if request.regmix_runs else []
    proposals = propose(environment.domains, request.proposals, optima=optima)
    for number, proposal in enumerate(proposals[done:], start=done):
        run = rollout(environment, scripted(proposal.mixtures), seed=request.proposals.seed + number)
        append(out / RUNS, [run])
        tell(Report(text=f"collecting {proposal.name}", step=number + 1, steps=wanted))
    return _made(request, wanted - done, environment.tokens_per_s)


def _card(out: Path, request: Collect) -> CollectionCard:
    """The collection's card, that of an earlier call if there was one; another one's is refused."""
    card = CollectionCard(request=request, data=hashes(request.domains), versions=library_versions())
    path = out / CARD
    if not path.is_file():
        return card
    try:
        found = CollectionCard.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise BadState(f"{path} cannot be read; collect into a new folder") from error
    if _question(found) != _question(card):
        raise Refused(f"{out} holds a collection of other data or settings; collect into a new folder")
    return found


def _question(card: CollectionCard) -> Json:
    """What makes two collections one: settings, domains and the bytes of their files, wherever they lie."""
    targets = [domain.target for domain in card.request.domains]
    settings = card.request.model_dump(mode="json", include={"proxy", "proposals", "regmix_runs", "regmix_tokens"})
    return {**settings, "data": card.data, "targets": targets}


def _whole_lines(path: Path) -> int:
    """Trajectories that are there; a last line that was torn by an interruption goes."""
    if not path.is_file():
        return 0
    text = path.read_bytes()
    if not text.endswith(b"\n"):
        path.write_bytes(text[: text.rfind(b"\n") + 1])
    return sum(1 for _ in read(path))


def _environment(out: Path, request: Collect, card: CollectionCard, tell: Tell) -> ProxyEnvironment:
    """The collection's environment; its shared start is kept, but never without the card of what it belongs to."""
    start = read_kept(out / START, load_file) if (out / START).is_file() else None
    proxy = request.proxy.model_copy(update={"steps": request.proposals.steps})
    name = f"collection/{out.resolve().name}"
    environment = environment_of(request.domains, proxy, tell, name=name, start=start)
    write_atomic(out / CARD, (card.model_dump_json(indent=1) + "\n").encode())
    if start is None:
        write_atomic(out / START, save(environment.initial))
    return environment


def _optimum(path: Path, environment: ProxyEnvironment, request: Collect, tell: Tell) -> Mixture:
    """RegMix's mixture, found once."""
    if not path.is_file():
        found = regmix_mixture(environment, request, tell, lambda _, make: make())
        write_atomic(path, json.dumps(list(found)).encode())
    return read_kept(path, lambda path: tuple(map(float, json.loads(path.read_text()))))


def _made(request: Collect, new: int, tokens_per_s: float) -> Json:
    return {
        "trajectories": request.proposals.trajectories,
        "made": new,
        "out": request.out,
        "tokens_per_s": round(tokens_per_s, 1),
    }
