"""``rekindle mixing …``: teach an agent that chooses mixtures, in a process of its own; only export asks the daemon."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.base import command, group
from orchestrator.cli.client import get, version_path
from orchestrator.cli.output import field, is_json, note, print_json, say, show_list, show_one
from orchestrator.cli.progress import Status, showing
from orchestrator.errors import BadInput
from orchestrator.service.names import parse_version_name
from storage.files import write_atomic
from strategies import defaults
from strategies.defaults import ENOUGH

mixing = group(
    "Learn how to mix domains: collect runs of a tiny model, train an agent on them, compare it with other ways."
)
Domains = Annotated[
    list[str],
    typer.Option(
        "--domain", metavar="NAME=FILE", help="A domain that must not be forgotten, and its text; repeatable."
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option("--target", metavar="NAME=FILE", help="A domain that training is for, and its text; repeatable."),
]
Out = Annotated[
    Path, typer.Option(metavar="DIR", file_okay=False, help="Folder to write to; an interrupted run goes on there.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what it would cost.")]
Steps = Annotated[int, typer.Option(min=1, help="Re-weighting steps per run.")]
StepTokens = Annotated[int, typer.Option(min=512, help="Training tokens per re-weighting step.")]
EvalTokens = Annotated[int, typer.Option(min=64, help="Tokens per domain in each evaluation.")]
Hidden = Annotated[
    int, typer.Option("--proxy-hidden", min=8, help="Width of the proxy, the tiny model; a multiple of 8.")
]
Layers = Annotated[int, typer.Option("--proxy-layers", min=1, help="Layers of the proxy.")]
Most = Annotated[
    int,
    typer.Option(
        "--proxy-max-parameters", min=1, help="Most parameters that the proxy may have, its embeddings aside."
    ),
]
RegMixRuns = Annotated[
    int, typer.Option(min=0, help="Runs that RegMix fits its mixture to, one of the constant ones; 0: without RegMix.")
]
RegMixTokens = Annotated[int, typer.Option(min=512, help="Tokens per run of RegMix.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random draws.")]
COLUMNS = (
    ("POLICY", field("policy")),
    ("FALL", field("fall")),
    ("± SEEDS", field("fall_deviation")),
    ("OLD LOSS", field("old_loss")),
    ("NEW LOSS", field("new_loss")),
    ("SEEDS", field("seeds")),
)


def add_to(app: typer.Typer) -> None:
    """Put these commands under the program."""
    app.add_typer(mixing, name="mixing")


@command(
    mixing,
    "collect",
    "rekindle mixing collect --domain web=web.txt --target law=law.jsonl --out runs",
    "rekindle mixing collect --domain web=web.txt --target law=law.jsonl --out runs --dry-run",
)
def collect(
    domain: Domains,
    out: Out,
    target: Targets = None,
    trajectories: Annotated[int, typer.Option(min=1, help="Number of runs.")] = ENOUGH,
    steps: Steps = defaults.STEPS,
    step_tokens: StepTokens = defaults.STEP_TOKENS,
    eval_tokens: EvalTokens = defaults.EVAL_TOKENS,
    proxy_hidden: Hidden = defaults.HIDDEN,
    proxy_layers: Layers = defaults.LAYERS,
    proxy_max_parameters: Most = defaults.MAX_PARAMETERS,
    regmix_runs: RegMixRuns = defaults.REGMIX_RUNS,
    regmix_tokens: RegMixTokens = defaults.REGMIX_TOKENS,
    seed: Seed = defaults.SEED,
    dry_run: DryRun = False,
) -> None:
    """Collect trajectories: runs of a tiny model on many mixtures, with the losses of each step."""
    request = {
        "kind": "collect",
        "domains": _files(domain, target),
        "out": str(out.absolute()),
        "proxy": {
            **_proxy(steps, step_tokens, eval_tokens, proxy_hidden, proxy_layers, proxy_max_parameters),
            "seed": seed,
        },
        "proposals": {"trajectories": trajectories, "steps": steps, "seed": seed},
        "regmix_runs": regmix_runs,
        "regmix_tokens": regmix_tokens,
    }
    done = _carried_out(request, dry_run=dry_run)
    if done is not None:
        show_one(done, [("trajectories", done["trajectories"]), ("made now", done["made"]), ("in", done["out"])])


@command(mixing, "train", "rekindle mixing train runs more-runs --out agent")
def train(
    trajectories: Annotated[
        list[Path], typer.Argument(metavar="DIR_OR_FILE...", help="What `mixing collect` or `mixing export` wrote.")
    ],
    out: Out,
    updates: Annotated[
        int, typer.Option(min=0, help="Number of updates by conservative Q-learning.")
    ] = defaults.UPDATES,
    warm_updates: Annotated[
        int, typer.Option(min=0, help="Number of updates of the supervised warm start before.")
    ] = defaults.WARM_UPDATES,
    conservative: Annotated[
        float, typer.Option(min=0, help="beta: how much the value of untried mixtures is lowered.")
    ] = defaults.CONSERVATIVE,
    seed: Seed = defaults.SEED,
    dry_run: DryRun = False,
) -> None:
    """Train an agent on trajectories; writes agent.json and agent.safetensors."""
    request = {
        "kind": "train",
        "trajectories": [str(path.absolute()) for path in trajectories],
        "out": str(out.absolute()),
        "learning": {"steps": updates, "warm_steps": warm_updates, "conservative": conservative, "seed": seed},
    }
    done = _carried_out(request, dry_run=dry_run)
    if done is not None:
        lessons = done["lessons"]
        if lessons["trajectories"] < ENOUGH:
            note(
                f"{lessons['trajectories']} trajectories are few to learn from: {ENOUGH} are the least that is advised"
            )
        learned = f"{lessons['trajectories']} trajectories, {lessons['steps']} steps"
        show_one(done, [("agent", done["agent"]), ("bytes", done["bytes"]), ("learned from", learned)])


@command(
    mixing,
    "evaluate",
    "rekindle mixing evaluate --agent agent --domain news=news.txt --target code=code.txt",
    "rekindle mixing evaluate --domain news=news.txt --target code=code.txt --regmix-runs 24 --output json",
)
def evaluate(
    domain: Domains,
    target: Targets = None,
    agent: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder that `mixing train` wrote.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder to keep finished runs in, so that an interrupted comparison can go on."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs of each policy.")] = defaults.SEEDS,
    steps: Steps = defaults.STEPS,
    step_tokens: StepTokens = defaults.STEP_TOKENS,
    eval_tokens: EvalTokens = defaults.EVAL_TOKENS,
    proxy_hidden: Hidden = defaults.HIDDEN,
    proxy_layers: Layers = defaults.LAYERS,
    proxy_max_parameters: Most = defaults.MAX_PARAMETERS,
    regmix_runs: RegMixRuns = defaults.REGMIX_RUNS,
    regmix_tokens: RegMixTokens = defaults.REGMIX_TOKENS,
    eta: Annotated[float, typer.Option(help="How strongly Skill-It's weights follow the losses.")] = defaults.ETA,
    dry_run: DryRun = False,
) -> None:
    """Compare an agent with constant mixtures, Skill-It and RegMix at equal tokens.

    FALL is how far the losses fell, in standard deviations over all runs; old and new domains count the same.
    """
    request = {
        "kind": "evaluate",
        "domains": _files(domain, target),
        "agent": None if agent is None else str(agent.absolute()),
        "out": None if out is None else str(out.absolute()),
        "proxy": _proxy(steps, step_tokens, eval_tokens, proxy_hidden, proxy_layers, proxy_max_parameters),
        "seeds": list(range(1, seeds + 1)),
        "regmix_runs": regmix_runs,
        "regmix_tokens": regmix_tokens,
        "eta": eta,
    }
    done = _carried_out(request, dry_run=dry_run)
    if done is not None and is_json():
        print_json(done)
    elif done is not None:
        show_list(done["rows"], COLUMNS, empty="nothing was compared")
        say(_in_words(done))


@command(
    mixing,
    "graph",
    "rekindle mixing graph --domain news=news.txt --domain law=law.txt --domain code=code.txt",
    "rekindle mixing graph --domain old/web=web.txt --target new/law=law.txt --improvement --output json",
)
def graph(
    domain: Domains,
    target: Targets = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of runs of each domain and of each pair.")] = defaults.SEEDS,
    steps: Steps = defaults.GRAPH_STEPS,
    step_tokens: StepTokens = defaults.STEP_TOKENS,
    eval_tokens: EvalTokens = defaults.EVAL_TOKENS,
    proxy_hidden: Hidden = defaults.HIDDEN,
    proxy_layers: Layers = defaults.LAYERS,
    proxy_max_parameters: Most = defaults.MAX_PARAMETERS,
    improvement: Annotated[
        bool,
        typer.Option(
            "--improvement", help=f"Weigh each edge by how much lower the loss ends, not by {defaults.EDGE:g}."
        ),
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Find which domain helps which, for Skill-It.

    One helps another where training a tiny model on both ends at a lower loss on the other than training on that other
    alone. The output belongs under `strategy.mixing.reweight` of a stream whose domains have these names.
    """
    request = {
        "kind": "graph",
        "domains": _files(domain, target),
        "proxy": _proxy(steps, step_tokens, eval_tokens, proxy_hidden, proxy_layers, proxy_max_parameters),
        "seeds": list(range(1, seeds + 1)),
        "weight": None if improvement else defaults.EDGE,
    }
    done = _carried_out(request, dry_run=dry_run)
    if done is not None and is_json():
        print_json(done)
    elif done is not None:
        say(as_yaml(done["graph"]))


@command(
    mixing,
    "export",
    "rekindle mixing export news/2 news/3 --out real.jsonl",
    "rekindle mixing export news@live --out a",
)
def export(
    names: Annotated[list[str], typer.Argument(metavar="NAME[/N|@live]...", help="Versions that were trained.")],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="File to write, a line per version; an existing one is replaced.")
    ],
) -> None:
    """Write the recorded mixtures and losses of versions, as input for `mixing train`."""
    place = out.expanduser().absolute()
    if place.is_dir() or not place.parent.is_dir():
        raise BadInput(f"{out} is no file that can be written; give --out a file in a folder that is there")
    lines = [json.dumps(get(f"{version_path(parse_version_name(name))}/trajectory")) for name in names]
    write_atomic(place, ("\n".join(lines) + "\n").encode())
    done = {"out": str(out), "trajectories": len(lines)}
    show_one(done, [("trajectories", len(lines)), ("in", out)])


def _proxy(
    steps: int, step_tokens: int, eval_tokens: int, hidden: int, layers: int, max_parameters: int
) -> dict[str, int]:
    return {
        "steps": steps,
        "step_tokens": step_tokens,
        "eval_tokens": eval_tokens,
        "hidden": hidden,
        "layers": layers,
        "max_parameters": max_parameters,
    }


def as_yaml(graph: dict[str, dict[str, float]]) -> str:
    """As a stream's settings take it, with names quoted where they have to be."""
    import yaml

    rows = {name: {to: float(f"{edge:.4g}") for to, edge in row.items()} for name, row in graph.items()}
    text = yaml.safe_dump({"graph": rows}, default_flow_style=None, allow_unicode=True, sort_keys=False, width=math.inf)
    return text.rstrip()


def _in_words(found: dict[str, Any]) -> str:
    guard, tokens = found["guard"], found["facts"]["tokens_a_run"]
    best = f"The best constant mixture is {guard}, at {tokens} tokens a run."
    if found["agent_minus_guard"] is None:
        return best
    word = "above" if found["agent_minus_guard"] > 0 else "not above"
    seeds = len(found["facts"]["seeds"])
    return (
        f"{best} The agent is {word} it: {found['agent_minus_guard']:+.3f}, better in {found['wins']} of {seeds} runs."
    )


def _files(domains: list[str], targets: list[str] | None) -> list[dict[str, Any]]:
    return [_file(one, target=False) for one in domains] + [_file(one, target=True) for one in targets or []]


def _file(given: str, *, target: bool) -> dict[str, Any]:
    name, equals, path = given.partition("=")
    if not (name and equals and path):
        raise BadInput(f"{given!r} is no domain; write NAME=FILE")
    if not Path(path).expanduser().is_file():
        raise BadInput(f"there is no file {path}")
    return {"name": name, "path": str(Path(path).expanduser().absolute()), "target": target}


def _carried_out(values: dict[str, Any], *, dry_run: bool) -> dict[str, Any] | None:
    """The result of what is asked for; None where only the cost was, which is printed."""
    from orchestrator.service.mixing import carry_out, checked
    from strategies.agent.requests import Report, estimate

    request = checked(values)
    if dry_run:
        cost = estimate(request).model_dump(mode="json")
        lines = [(name.replace("_", " "), value) for name, value in cost.items() if value]
        show_one(cost, lines)
        return None
    with showing() as show:

        def tell(report: Report) -> None:
            show(Status(text=report.text, step=report.step, steps=report.steps))

        return carry_out(request, tell)
