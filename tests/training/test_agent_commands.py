"""Collect, train, evaluate: resumable, with provenance, and compared at equal tokens."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from strategies.agent import graph as agent_graph
from strategies.agent.commands import proxies
from strategies.agent.commands.collect import OPTIMUM, START, collect
from strategies.agent.commands.evaluate import evaluate
from strategies.agent.commands.graph import graph
from strategies.agent.commands.teach import SAVE_EVERY, UNFINISHED, teach
from strategies.agent.folder import CARD as AGENT_CARD
from strategies.agent.folder import WEIGHTS
from strategies.agent.requests import Collect, DomainFile, Evaluate, Graph, Report, Teach, estimate
from strategies.agent.rollout import Chooser
from strategies.agent.trajectories import Trajectory, append, read
from strategies.errors import BadState, Refused
from strategies.mixing.regmix import candidates
from strategies.settings.agent import AgentSettings, LearningSettings, ProposalSettings, ProxySettings
from tests.models import texts
from tests.training.agent_worlds import runs as worlds
from tests.training.agent_worlds import world

PROXY = ProxySettings(hidden=16, length=16, batch=4, step_tokens=128, eval_tokens=32, steps=2, initial_steps=2)


def silent(report: Report) -> None:
    """Nobody looks."""


def request(domains: tuple[DomainFile, ...], out: Path, trajectories: int = 7) -> Collect:
    proposals = ProposalSettings(trajectories=trajectories, steps=2)
    return Collect(domains=domains, out=str(out), proxy=PROXY, proposals=proposals, regmix_runs=0)


def test_an_interrupted_collection_goes_on_and_equals_a_whole_one(
    tmp_path: Path, domains: tuple[DomainFile, ...]
) -> None:
    whole, torn = tmp_path / "whole" / "runs", tmp_path / "torn" / "runs"
    assert collect(request(domains, whole), silent)["made"] == 7
    assert collect(request(domains, torn), silent)["made"] == 7
    lines = (torn / "trajectories.jsonl").read_bytes().splitlines(keepends=True)
    (torn / "trajectories.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:50])
    assert collect(request(domains, torn), silent)["made"] == 3
    assert (torn / "trajectories.jsonl").read_bytes() == (whole / "trajectories.jsonl").read_bytes()
    found = list(read(whole / "trajectories.jsonl"))
    assert all(one.complete and set(one.provenance.data) == {"old", "new"} for one in found)


def test_a_collection_tries_the_mixture_that_regmix_finds(tmp_path: Path, domains: tuple[DomainFile, ...]) -> None:
    asked = request(domains, tmp_path / "runs", 3).model_copy(update={"regmix_runs": 24, "regmix_tokens": 64})
    collect(asked, silent)
    found = json.loads((tmp_path / "runs" / OPTIMUM).read_text())
    third = list(read(tmp_path / "runs" / "trajectories.jsonl"))[2]
    assert sum(found) == pytest.approx(1)
    assert [list(done.weights) for done in third.steps] == [pytest.approx(found)] * 2
    assert estimate(asked).tokens - estimate(request(domains, tmp_path / "runs", 3)).tokens == 24 * 64


def test_a_collection_of_other_settings_or_data_is_not_gone_on_with(
    tmp_path: Path, domains: tuple[DomainFile, ...]
) -> None:
    collect(request(domains, tmp_path / "runs", 1), silent)
    with pytest.raises(Refused, match="other data or settings"):
        collect(request(domains, tmp_path / "runs", 2), silent)
    Path(domains[0].path).write_text("\n\n".join(texts(30, start=300)))
    with pytest.raises(Refused, match="other data or settings"):
        collect(request(domains, tmp_path / "runs", 1), silent)


def test_an_agent_is_compared_with_everything_else_at_equal_tokens(
    tmp_path: Path, domains: tuple[DomainFile, ...]
) -> None:
    collect(request(domains, tmp_path / "runs"), silent)
    small = {"agent": AgentSettings(width=8, heads=2, critic_width=4)}
    learning = LearningSettings(warm_steps=2, steps=1, batch=4, proposals=3)
    made = teach(
        Teach(trajectories=(str(tmp_path / "runs"),) * 2, out=str(tmp_path / "agent"), learning=learning, **small),
        silent,
    )
    assert made["lessons"]["trajectories"] == 7
    asked = Evaluate(
        domains=domains,
        agent=str(tmp_path / "agent"),
        out=str(tmp_path / "kept"),
        proxy=PROXY,
        seeds=(1, 2),
        regmix_runs=24,
        regmix_tokens=64,
    )
    reports: list[Report] = []
    found = evaluate(asked, reports.append)
    rows = {row["policy"]: row for row in found["rows"]}
    constants = {"uniform", "prior", "replay-0.05", "replay-0.25", "replay-0.5", "regmix"}
    assert set(rows) == constants | {"skill-it", "agent"}
    assert estimate(asked).runs == 2 * len(rows)
    assert found["guard"] == max(constants, key=lambda name: rows[name]["fall"])
    assert found["agent_minus_guard"] == pytest.approx(rows["agent"]["fall"] - rows[found["guard"]]["fall"])
    assert found["facts"]["tokens_a_run"] == 256
    assert (reports[-1].step, reports[-1].steps) == (32, 32)
    again: list[Report] = []
    assert evaluate(asked, again.append) == found
    assert not [one for one in again if one.text.startswith("comparing")], "a kept run was made again"
    with pytest.raises(Refused, match="runs of other data or settings"):
        evaluate(asked.model_copy(update={"seeds": (3,)}), silent)


def test_kept_tiny_runs_are_taken_for_the_mixtures_that_they_were_run_on_alone(
    tmp_path: Path, domains: tuple[DomainFile, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    asked = Evaluate(domains=domains, out=str(kept), proxy=PROXY, seeds=(1,), regmix_runs=24, regmix_tokens=64)
    evaluate(asked, silent)
    monkeypatch.setattr(proxies, "candidates", lambda *given, **named: candidates(*given, **named)[::-1])
    evaluate(asked, silent)
    assert len(list(kept.glob("regmix-tiny-*"))) == 48


def teaching(runs: Path, out: Path) -> Teach:
    return Teach(
        trajectories=(str(runs),),
        out=str(out),
        agent=AgentSettings(width=8, heads=2, critic_width=4),
        learning=LearningSettings(warm_steps=30, steps=170, batch=4, proposals=3),
    )


def interrupted(request: Teach) -> None:
    """Teach in a process of its own, which is interrupted once it has kept something."""
    with subprocess.Popen(
        [sys.executable, "-m", "strategies.agent"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell has SIGINT ignored, and hands that on.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdin is not None
        process.stdin.write(request.model_dump_json())
        process.stdin.close()
        while not any(Path(request.out, UNFINISHED).glob("step-*")):
            assert process.poll() is None, "it ended before it could be interrupted"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) != 0


def test_an_interrupted_training_goes_on_and_equals_a_whole_one(tmp_path: Path) -> None:
    runs, whole, torn = (tmp_path / name for name in ("runs.jsonl", "whole", "torn"))
    append(runs, worlds(world(total=4), 8))
    wanted = teach(teaching(runs, whole), silent)
    interrupted(teaching(runs, torn))
    assert not (torn / WEIGHTS).exists()
    reports: list[Report] = []
    found = teach(teaching(runs, torn), reports.append)
    assert SAVE_EVERY < reports[0].step < 200
    assert (found["last"], found["bytes"]) == (wanted["last"], wanted["bytes"])
    assert all((torn / name).read_bytes() == (whole / name).read_bytes() for name in (AGENT_CARD, WEIGHTS))
    assert sorted(path.name for path in torn.iterdir()) == [AGENT_CARD, WEIGHTS]


def test_an_unfinished_agent_of_other_trajectories_is_not_gone_on_with(tmp_path: Path) -> None:
    append(tmp_path / "runs.jsonl", worlds(world(total=4), 8))
    interrupted(teaching(tmp_path / "runs.jsonl", tmp_path / "agent"))
    append(tmp_path / "runs.jsonl", worlds(world(total=5), 1))
    with pytest.raises(
        Refused, match=r"other trajectories or with other settings: remove \S+unfinished, or train into"
    ):
        teach(teaching(tmp_path / "runs.jsonl", tmp_path / "agent"), silent)


def test_a_domain_with_too_little_text_is_refused(tmp_path: Path, domains: tuple[DomainFile, ...]) -> None:
    Path(domains[0].path).write_text("one\n\ntwo")
    with pytest.raises(Refused, match="too little text"):
        collect(request(domains, tmp_path / "runs"), silent)
    Path(domains[0].path).write_text("\n\n".join(texts(30)))
    assert collect(request(domains, tmp_path / "runs", 1), silent)["made"] == 1


def test_a_damaged_file_that_was_kept_is_named(tmp_path: Path, domains: tuple[DomainFile, ...]) -> None:
    collect(request(domains, tmp_path / "runs", 1), silent)
    (tmp_path / "runs" / "trajectories.jsonl").unlink()
    (tmp_path / "runs" / START).write_bytes(b"torn")
    with pytest.raises(BadState, match=rf"{START} cannot be read; remove it, and it is made anew"):
        collect(request(domains, tmp_path / "runs", 1), silent)
    (tmp_path / "runs" / START).unlink()
    assert collect(request(domains, tmp_path / "runs", 1), silent)["made"] == 1


ALONE = {"old": (2.0, 9.0, 9.0), "new": (9.0, 4.0, 9.0), "twin": (9.0, 9.0, 1.0)}
TOGETHER = {"old new": (1.5, 5.0, 9.0), "old twin": (2.0, 9.0, 0.9), "new twin": (9.0, 3.0, 0.5)}
"""What training on one domain or on two, half and half, ends with on old, new and twin."""


def ended(environment: object, choose: Chooser, *, seed: int) -> SimpleNamespace:
    """Stands in for a run; between two seeds lies what :data:`ALONE` says."""
    mixture = choose(cast(Trajectory, None))
    members = [name for name, weight in zip(ALONE, mixture, strict=True) if weight]
    assert list(mixture) == [(name in members) / len(members) for name in ALONE]
    losses = {**ALONE, **TOGETHER}[" ".join(members)]
    apart = 0.5 * (-1) ** seed if len(members) == 1 else 0.0
    return SimpleNamespace(steps=[SimpleNamespace(losses=[loss + apart for loss in losses])])


@pytest.mark.parametrize("weight", [None, 0.5])
def test_the_graph_has_an_edge_where_training_on_both_ends_lower(
    domains: tuple[DomainFile, ...], monkeypatch: pytest.MonkeyPatch, weight: float | None
) -> None:
    monkeypatch.setattr(agent_graph, "rollout", ended)
    twin = DomainFile(name="twin", path=domains[0].path)
    found = graph(Graph(domains=(*domains, twin), proxy=PROXY, seeds=(1, 2), weight=weight), silent)["graph"]
    falls = {("new", "old"): 0.25, ("old", "twin"): 0.1, ("twin", "new"): 0.25, ("new", "twin"): 0.5}
    edges = {(start, end): edge for start, row in found.items() for end, edge in row.items()}
    own = {(name, name): 1.0 for name in ALONE}
    assert edges == pytest.approx({**own, **{pair: weight or fall for pair, fall in falls.items()}})


def test_the_graph_is_of_every_domain_and_the_same_again(domains: tuple[DomainFile, ...]) -> None:
    twin = DomainFile(name="twin", path=domains[0].path)
    heard: list[Report] = []
    asked = Graph(
        domains=(*domains, twin), proxy=PROXY.model_copy(update={"learning_rate": 1e-2}), seeds=(1,), weight=None
    )
    found = graph(asked, heard.append)
    assert set(found["graph"]) == {"old", "new", "twin"}
    assert all(row[name] == 1.0 and min(row.values()) > 0 for name, row in found["graph"].items())
    assert (heard[-1].step, heard[-1].steps) == (6, estimate(asked).runs)
    assert graph(asked, silent)["graph"] == found["graph"]
    assert found["facts"]["data"]["twin"] == found["facts"]["data"]["old"]
