"""``rekindle mixing``: its costs, its refusals, what it leaves; and how a version's weights are shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator.cli.configuration import read_file
from orchestrator.cli.mixing import as_yaml
from orchestrator.cli.mixture import mixture_plot
from orchestrator.errors import RekindleError
from orchestrator.service import mixing
from strategies.agent.requests import Collect, DomainFile, Report, Teach, estimate
from strategies.settings.agent import ProxySettings
from tests.models import texts

REKINDLE = str(Path(sys.executable).with_name("rekindle"))
TWO = ("--domain", f"a={__file__}", "--domain", f"b={__file__}")
SMALL = ("--steps", "2", "--step-tokens", "512", "--eval-tokens", "64")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [REKINDLE, "mixing", *arguments], env=environment, capture_output=True, text=True, timeout=400, check=False
    )


@pytest.fixture
def domains(tmp_path: Path) -> list[str]:
    for at, name in enumerate(("old", "new")):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(texts(40, start=100 * at)))
    return ["--domain", f"old={tmp_path / 'old.txt'}", "--target", f"new={tmp_path / 'new.txt'}"]


def test_what_a_collection_costs_is_said_without_doing_it(tmp_path: Path, domains: list[str]) -> None:
    said = run("collect", *domains, "--out", str(tmp_path / "runs"), "--dry-run", "--output", "json")
    cost = json.loads(said.stdout)
    assert (cost["runs"], cost["tokens"]) == (128, 128 * 40 * 4096 + 40 * 4096 + 64 * 50_000)
    assert 0.3 < cost["cpu_hours"] < 2
    assert not (tmp_path / "runs").exists()


def test_twice_the_runs_cost_twice_as_much() -> None:
    files = (DomainFile(name="a", path="a"), DomainFile(name="b", path="b"))
    request = Collect(domains=files, out="runs")
    once = estimate(request.model_copy(update={"proxy": request.proxy.model_copy(update={"initial_steps": 0})}))
    assert estimate(request).tokens - once.tokens == 40 * 4096


def test_what_a_larger_proxy_costs_follows_its_size() -> None:
    """Beside the default one, measured on one core: 0.78 and 3.6 times as long a token at widths of 8 and of 256."""
    files = (DomainFile(name="a", path="a"), DomainFile(name="b", path="b"))
    hours = [
        estimate(Collect(domains=files, out="runs", proxy=ProxySettings(**size))).cpu_hours
        for size in ({}, {"hidden": 8}, {"hidden": 256, "max_parameters": 2_000_000})
    ]
    assert [one / hours[0] for one in hours[1:]] == pytest.approx([0.69, 3.54], abs=0.01)


@pytest.mark.parametrize("name", ["new/Legal / Über texts", "old/Q&A (1990–2000): misc.", "domain " + "x" * 193])
def test_a_domain_may_be_called_as_in_a_stream(name: str, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("one")
    file = f"{tmp_path / 'texts.txt'}"
    ran = run("graph", "--domain", f"{name}={file}", "--target", f"b={file}", "--dry-run", "--output", "json")
    assert json.loads(ran.stdout)["runs"] == 9, ran.stderr


def test_a_graph_is_printed_as_settings_take_it(tmp_path: Path) -> None:
    found = {"new/Legal, Über: texts": {"new/Legal, Über: texts": 1.0, "yes": 0.51239}, "yes": {"yes": 1.0}}
    (tmp_path / "s.yaml").write_text(as_yaml(found))
    rounded = {**found, "new/Legal, Über: texts": {"new/Legal, Über: texts": 1.0, "yes": 0.5124}}
    assert read_file(tmp_path / "s.yaml") == {"graph": rounded}
    assert as_yaml({"a": {"a": 1.0, "b": 0.5}}) == "graph:\n  a: {a: 1.0, b: 0.5}"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("collect", "--domain", "web", "--out", "runs"), 2, "write NAME=FILE"),
        (("collect", "--domain", "web=nowhere.txt", "--out", "runs"), 2, "there is no file nowhere.txt"),
        (("collect", "--domain", f"a={__file__}", "--target", f"a={__file__}", "--out", "runs"), 2, "are called a"),
        (
            (
                "collect",
                "--domain",
                f"a={__file__}",
                "--target",
                f"b={__file__}",
                "--out",
                "runs",
                "--regmix-runs",
                "1",
            ),
            2,
            "1 tiny runs are too few to fit",
        ),
        (("train", "nowhere", "--out", "agent"), 1, "there are no trajectories"),
        (("train", "nowhere", "--out", "agent", "--conservative", "inf"), 2, "conservative: Input should be a finite"),
        (("evaluate", *TWO, "--eta", "inf"), 2, "eta: Input should be a finite number"),
        (("evaluate", "--domain", f"a={__file__}"), 2, "error: one domain alone cannot be mixed; name two or more"),
        (("graph", *TWO, "--domain", f"{'x' * 201}={__file__}"), 2, "is printable text of 1 to 200 characters"),
        (("graph", *TWO, "--domain", f"a\tb={__file__}"), 2, "is printable text of 1 to 200 characters"),
        (("graph", *TWO, "--proxy-hidden", "512", "--dry-run"), 2, "5245440 parameters beside its embeddings, at most"),
        (("graph", *TWO, "--proxy-hidden", "60"), 2, "hidden must be a multiple of 8"),
    ],
)
def test_errors_are_one_line(arguments: tuple[str, ...], code: int, said: str) -> None:
    ran = run(*arguments)
    assert ran.returncode == code
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert said in line


ASKED = Teach(trajectories=("runs",), out="agent")
REPORT = "import json, os, sys, time; print(json.dumps({'text': str(os.getpid()), 'step': 1, 'steps': 2}), flush=True)"


def pretending(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Let another process do the work: one that reports its pid, then does as the lines say."""
    monkeypatch.setattr(mixing, "COMMAND", (sys.executable, "-c", "\n".join((REPORT, *lines))))


def test_a_process_may_warn_as_much_as_it_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    pretending(monkeypatch, "sys.stderr.write('a warning\\n' * 100_000)", "print(json.dumps({'result': {'a': 1}}))")
    told: list[Report] = []
    assert mixing.carry_out(ASKED, told.append) == {"a": 1}
    assert [(one.step, one.steps) for one in told] == [(1, 2)]


def test_what_a_process_failed_of_is_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pretending(monkeypatch, "sys.exit('a warning\\n' * 100_000 + 'the runs are damaged\\n')")
    with pytest.raises(RekindleError, match=r"^the runs are damaged$"):
        mixing.carry_out(ASKED, lambda _: None)
    pretending(monkeypatch, "os._exit(7)")
    with pytest.raises(RekindleError, match="exit code 7"):
        mixing.carry_out(ASKED, lambda _: None)


def test_an_interrupted_wait_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    pretending(monkeypatch, "time.sleep(600)")
    pids = []

    def interrupt(report: Report) -> None:
        pids.append(int(report.text))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mixing.carry_out(ASKED, interrupt)
    assert len(pids) == 1
    assert not psutil.pid_exists(pids[0])


@pytest.mark.slow
def test_from_runs_to_an_agent_to_a_table_by_the_command_line(tmp_path: Path, domains: list[str]) -> None:
    runs, agent = str(tmp_path / "runs"), str(tmp_path / "agent")
    made = run(
        "collect", *domains, "--out", runs, "--trajectories", "7", "--regmix-runs", "0", *SMALL, "--output", "json"
    )
    assert json.loads(made.stdout)["made"] == 7, made.stderr
    taught = run("train", runs, "--out", agent, "--updates", "1", "--warm-updates", "2", "--output", "json")
    assert json.loads(taught.stdout)["lessons"]["trajectories"] == 7, taught.stderr
    assert "7 trajectories are few to learn from: 128 are the least" in taught.stderr
    asked = ("evaluate", *domains, "--seeds", "1", "--regmix-runs", "0", *SMALL, "--out", str(tmp_path / "kept"))
    compared = run(*asked, "--agent", agent)
    assert "The best constant mixture is" in compared.stdout, compared.stderr
    assert run(*asked, "--agent", agent).stdout == compared.stdout


def test_the_weights_of_a_version_are_drawn() -> None:
    course = [
        {"step": 0, "weights": {"new": "0.75", "old": "0.25"}, "losses": {}},
        {"step": 5, "weights": {"new": "1/2", "old": "1/2"}, "losses": {"new": 2.0, "old": 3.0}},
    ]
    lines = list(mixture_plot({"jobs": {"train": {"mixture": course}, "fit": {}}}))
    assert lines == [
        "\nweights of job train, steps 0 to 5",
        "  new   75.0%  ▇▅   50.0%  loss 2",
        "  old   25.0%  ▃▅   50.0%  loss 3",
    ]
    assert not list(mixture_plot({"jobs": {"train": {}}}))
