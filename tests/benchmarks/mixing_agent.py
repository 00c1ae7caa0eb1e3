"""Does an agent that learned to mix some domains mix others better than the best constant mixture does?

``OMP_NUM_THREADS=1 python -m tests.benchmarks.mixing_agent --preset quick|short|standard [--place DIR]``

``short`` fits about an hour of one core, ``standard`` has the 128 trajectories that METHODS 4.1 asks for.

Collects trajectories in several environments, trains one agent on all of them, and compares it with constant mixtures
(uniform, prior, replay, RegMix) and Skill-It, at equal tokens, in environments whose domains it never saw. The three
steps are those of ``rekindle mixing collect``, ``train`` and ``evaluate``; each is kept, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from strategies.agent.commands.collect import collect
from strategies.agent.commands.evaluate import evaluate
from strategies.agent.commands.teach import teach
from strategies.agent.requests import Collect, DomainFile, Evaluate, Report, Teach
from strategies.agent.texts import hashes
from strategies.settings import Closed
from strategies.settings.agent import LearningSettings, ProposalSettings, ProxySettings
from tests.benchmarks.cells import Cells
from tests.benchmarks.harness import (
    CACHE,
    QUIET,
    ROOT,
    Record,
    commit,
    files_hash,
    hash_of,
    result_option,
    said,
    say,
    shared_data,
    stamped,
    write_result,
)
from tests.benchmarks.inputs import Missing, packed_or_plain, require

LM = "lm_domains"
COMMITS = "commits.json"
"""Beside what a folder keeps: the commits that made it."""


class World(Closed):
    """Domains that are mixed with each other: what must not be forgotten, and what training is for."""

    name: str
    sources: tuple[str, ...] = ()
    targets: tuple[str, ...]
    seed: int = 1234
    """Of the shared start, and of the mixtures that are collected."""

    @property
    def domains(self) -> tuple[str, ...]:
        return (*self.sources, *self.targets)


class Preset(Closed):
    """How much is done."""

    name: str
    trajectories: tuple[int, ...]
    """In each of the environments that are learned from, in their order; 0 leaves one out."""
    proxy: ProxySettings = ProxySettings()
    learning: LearningSettings
    seeds: tuple[int, ...] = (1, 2, 3)
    regmix_runs: int = 64
    regmix_tokens: int = 50_000
    compared: tuple[str, ...] = Field(min_length=1)

    @property
    def learned(self) -> dict[World, int]:
        """The environments that are learned from, and how many trajectories are made in each."""
        return {world: count for world, count in zip(LEARNED, self.trajectories, strict=True) if count}


LEARNED = (
    World(name="novels-to-peps", sources=("novels-en",), targets=("peps-en",), seed=11),
    World(name="novels-speeches-to-reviews", sources=("novels-en", "speeches-en"), targets=("reviews-en",), seed=12),
    World(name="three-to-peps", sources=("novels-en", "reviews-en", "speeches-en"), targets=("peps-en",), seed=13),
    World(name="peps-to-speeches-reviews", sources=("peps-en",), targets=("speeches-en", "reviews-en"), seed=14),
)
HELD_OUT = (
    World(name="german-to-code", sources=("novels-de",), targets=("code-python",)),
    World(
        name="four-to-german-code",
        sources=("novels-en", "speeches-en", "reviews-en", "peps-en"),
        targets=("novels-de", "code-python"),
    ),
)
"""Both targets were never learned from, and no environment had six domains."""

PRESETS = {
    "quick": Preset(
        name="quick",
        trajectories=(7, 7, 7, 7),
        proxy=ProxySettings(hidden=16, length=16, batch=4, step_tokens=128, eval_tokens=32, steps=2, initial_steps=2),
        learning=LearningSettings(warm_steps=2, steps=1, batch=8),
        seeds=(1,),
        regmix_runs=24,
        regmix_tokens=64,
        compared=("german-to-code",),
    ),
    "short": Preset(
        name="short",
        trajectories=(32, 32, 0, 32),
        learning=LearningSettings(warm_steps=300, steps=300),
        compared=("german-to-code",),
    ),
    "standard": Preset(
        name="standard",
        trajectories=(32, 32, 32, 32),
        learning=LearningSettings(),
        compared=tuple(world.name for world in HELD_OUT),
    ),
}


class Texts:
    """The domains' training files, unpacked once."""

    def __init__(self, data: Path, place: Path) -> None:
        self._data, self._place = data / LM, place

    def check(self, preset: Preset) -> None:
        """Raises :class:`Missing` with the first file that a preset lacks."""
        worlds = [*preset.learned, *(world for world in HELD_OUT if world.name in preset.compared)]
        require(self._packed(name) for world in worlds for name in world.domains)

    def of(self, world: World) -> tuple[DomainFile, ...]:
        return tuple(
            DomainFile(name=name, path=str(self._unpacked(name)), target=name in world.targets)
            for name in world.domains
        )

    def _unpacked(self, name: str) -> Path:
        plain = self._place / f"{name}.jsonl"
        if not plain.is_file():
            found = packed_or_plain(self._packed(name))
            text = gzip.decompress(found.read_bytes()) if found.suffix == ".gz" else found.read_bytes()
            plain.parent.mkdir(parents=True, exist_ok=True)
            plain.with_suffix(".part").write_bytes(text)
            plain.with_suffix(".part").replace(plain)
        return plain

    def _packed(self, name: str) -> Path:
        return self._data / f"{name}.train.jsonl"


@contextlib.contextmanager
def signed(folder: Path) -> Iterator[None]:
    """Note the commit beside what is made in a folder meanwhile, an interrupted run's too: what is kept outlives it."""
    before = _sizes(folder)
    try:
        yield
    finally:
        if _sizes(folder) != before:
            made_by = list(dict.fromkeys([*commits_of(folder), commit()]))
            (folder / COMMITS).write_text(json.dumps(made_by))


def commits_of(folder: Path) -> list[str | None]:
    """The commits that made what a folder keeps."""
    path = folder / COMMITS
    return list(json.loads(path.read_text())) if path.is_file() else []


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.glob("*.json*") if path.name != COMMITS}


def collected(world: World, count: int, preset: Preset, texts: Texts, place: Path) -> Record:
    """The environment's trajectories; those that are there already stay."""
    out = place / "runs" / world.name
    request = Collect(
        domains=texts.of(world),
        out=str(out),
        proxy=preset.proxy.model_copy(update={"seed": world.seed}),
        proposals=ProposalSettings(trajectories=count, steps=preset.proxy.steps, seed=world.seed),
        regmix_runs=0,
    )
    with signed(out):
        made = collect(request, _telling(world.name))
    return {
        "world": world.model_dump(),
        "data": hashes(request.domains),
        "trajectories": made["trajectories"],
        "commits": commits_of(out),
    }


def taught(preset: Preset, place: Path) -> Record:
    """One agent, from the trajectories of all environments that are learned from."""
    runs = tuple(str(place / "runs" / world.name) for world in preset.learned)
    code = files_hash(*sorted((ROOT / "strategies" / "agent").rglob("*.py")))
    facts = ["teach", preset.learning.model_dump(), _stamps(runs), code]
    folder = place / f"agent-{hash_of(facts)[:12]}"
    request = Teach(trajectories=runs, out=str(folder), learning=preset.learning)
    found = Cells(place).kept(facts, lambda _: {**teach(request, _telling("agent")), "commits": [commit()]})
    return {**found, "learning": preset.learning.model_dump()}


def compared(world: World, preset: Preset, texts: Texts, agent: Path, place: Path) -> Record:
    """The table of all ways to choose in an environment that is held out."""
    out = place / "compared" / world.name
    request = Evaluate(
        domains=texts.of(world),
        agent=str(agent),
        out=str(out),
        proxy=preset.proxy,
        seeds=preset.seeds,
        regmix_runs=preset.regmix_runs,
        regmix_tokens=preset.regmix_tokens,
    )
    with signed(out):
        found = evaluate(request, _telling(world.name))
    return {"world": world.model_dump(), **found, "commits": commits_of(out)}


def measure(preset: Preset, data: Path, place: Path) -> Record:
    """All three steps."""
    texts = Texts(data, place / "data")
    texts.check(preset)
    lessons = [collected(world, count, preset, texts, place) for world, count in preset.learned.items()]
    agent = taught(preset, place)
    tables = {
        world.name: compared(world, preset, texts, Path(agent["agent"]), place)
        for world in HELD_OUT
        if world.name in preset.compared
    }
    return {
        "collected": lessons,
        "agent": {name: one for name, one in agent.items() if name != "agent"},
        "held_out": tables,
    }


def _stamps(runs: Sequence[str]) -> list[str]:
    return [hash_of((Path(run) / "trajectories.jsonl").read_text()) for run in runs]


def _telling(what: str) -> Any:
    """Says a tenth of what it is told."""

    def tell(report: Report) -> None:
        if report.step % max(1, report.steps // 10) == 0:
            say(f"{what}: {report.text} {report.step}/{report.steps}")

    return tell


def main(argv: Sequence[str] | None = None) -> int:
    """Collect, train, compare; write the JSON; 1 with one line if the data is not there."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.mixing_agent")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="quick")
    parser.add_argument("--data", type=Path, default=shared_data() / "data", help="folder of the data sets")
    parser.add_argument("--place", type=Path, default=None, help="where runs and agents are kept; default: .bench")
    result_option(parser)
    given = parser.parse_args(argv)
    os.environ.update(QUIET)
    preset = PRESETS[given.preset]
    place = given.place or CACHE / "mixing_agent" / preset.name

    def work() -> None:
        measured = measure(preset, given.data, place)
        found = stamped("mixing_agent", {"preset": preset.model_dump(mode="json"), "measured": measured})
        write_result(found, given.results / f"mixing_agent-{preset.name}.json")

    return said("mixing_agent", work, Missing)


if __name__ == "__main__":
    sys.exit(main())
