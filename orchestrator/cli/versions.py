"""``rekindle version …`` and ``evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.base import command, group
from orchestrator.cli.client import LONG_S, get, part, post, version_path
from orchestrator.cli.mixture import mixture_plot
from orchestrator.cli.output import (
    clean,
    field,
    is_json,
    note,
    print_json,
    print_table,
    say,
    show_list,
    show_one,
    text,
    time_field,
    when,
)
from orchestrator.cli.paging import Before, Limit, show_page
from orchestrator.cli.progress import Status, busy, job_status, wait
from orchestrator.errors import BadInput, RekindleError
from orchestrator.service.names import parse_numbered, parse_version_name
from storage.states import JOB_ENDED
from strategies.words import counted

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the stream.")]
Line = Annotated[
    str,
    typer.Argument(metavar="NAME[/N|@live]", help="A stream; or a version, with its ancestors and descendants alone."),
]
Which = Annotated[str, typer.Argument(metavar="NAME[/N|@live]", help="A version; without a number, the live one.")]
Numbered = Annotated[str, typer.Argument(metavar="NAME/N", help="A version, by its number.")]
versions = group("See versions and their lineage; compare, promote and export them.")
COLUMNS = (
    ("VERSION", field("number")),
    ("STATE", field("state")),
    ("STRATEGY", field("strategy")),
    ("PARENTS", field("parents")),
    ("BATCHES", field("batches")),
    ("JOB", field("job")),
    ("CREATED", time_field("created_at")),
    ("SCORES", field("scores")),
)
EVALUATION_COLUMNS = (
    ("VERSION", field("version")),
    ("EVAL SET", field("eval_set")),
    ("METRIC", field("metric")),
    ("VALUE", field("value")),
    ("EXAMPLES", field("examples")),
)


def add_to(app: typer.Typer) -> None:
    """Put these commands under the program."""
    app.add_typer(versions, name="version")
    command(app, "evaluate", "rekindle evaluate news", "rekindle evaluate news/3 --data questions.jsonl --output json")(
        evaluate
    )


@command(versions, "list", "rekindle version list news", "rekindle version list news --output json")
def list_versions(name: Name, limit: Limit = 100, before: Before = None) -> None:
    """List a stream's versions, the newest last."""
    stream = parse_version_name(name).stream
    rows = get(f"/streams/{part(stream)}/versions", limit=limit, before=before)
    show_page(rows, COLUMNS, limit=limit, empty=f"stream {stream} has no version yet", key="number")


@command(versions, "show", "rekindle version show news@live", "rekindle version show news/3 --output json")
def show_version(name: Which) -> None:
    """Show a version: where it came from, its scores, the gate's verdict."""
    found = get(version_path(parse_version_name(name)))
    verdict = found["verdict"] or {}
    decided = {} if is_json() or found["decision"] is None else get(f"/decisions/{found['decision']}")
    probed = [(key, one) for key, one in decided.get("measured", {}).items() if key.startswith("probe")]
    show_one(
        found,
        [
            ("version", f"{found['stream']}/{found['number']}, {found['state']}"),
            ("rejected", found["rejection"]),
            ("strategy", found["strategy"]),
            ("parents", [_edge(one) for one in found["edges"]]),
            ("batches", found["batches"]),
            ("decision", found["decision"]),
            ("reason", decided.get("reason")),
            *probed,
            ("job", found["job"]),
            ("gate", f"{verdict['outcome']} ({verdict['mode']}): {verdict['reason']}" if verdict else None),
            ("created", when(found["created_at"])),
            ("model", found["model_hash"]),
            ("new bytes", _new_bytes(found["facts"])),
            *(("warning", one) for one in warnings_of(found["facts"])),
        ],
    )
    if is_json():
        return
    for line in mixture_plot(found["facts"]):
        say(line)
    if found["evaluations"]:
        print()
        _print_columns(found["evaluations"], EVALUATION_COLUMNS)
    for one in found["promotions"]:
        say(f"{when(one['created_at'])}  {one['kind']} by {one['actor']}: {one['reason']}")


@command(versions, "lineage", "rekindle version lineage news", "rekindle version lineage news/3 --output json")
def version_lineage(name: Line) -> None:
    """Show which version came from which, as a tree."""
    wanted = parse_version_name(name)
    path = f"/streams/{part(wanted.stream)}/lineage" if name == wanted.stream else f"{version_path(wanted)}/lineage"
    rows = get(path)
    if is_json():
        print_json(rows)
    else:
        _print_tree(wanted.stream, rows)


@command(versions, "matrix", "rekindle version matrix news", "rekindle version matrix news --output json")
def version_matrix(name: Name, limit: Limit = 100, before: Before = None) -> None:
    """Print all scores: eval sets down, versions across. As JSON, one object per evaluation."""
    stream = parse_version_name(name).stream
    rows = get(f"/streams/{part(stream)}/matrix", limit=limit, before=before)
    if is_json():
        print_json(rows)
    elif not rows:
        say(f"stream {stream} has no scores yet")
    else:
        _print_matrix(rows)
        _print_transfer(get(f"/streams/{part(stream)}/transfer"))


@command(versions, "compare", "rekindle version compare news/2 news/3")
def compare_versions(a: Numbered, b: Numbered) -> None:
    """Compare two versions: data, settings, scores, and the documents on which they differ."""
    (stream, first), (other, second) = parse_numbered(a), parse_numbered(b)
    if stream != other:
        raise BadInput(f"{a} and {b} are of different streams; compare versions of one stream")
    found = get(f"/streams/{part(stream)}/compare/{first}/{second}")
    if is_json():
        print_json(found)
    else:
        _print_comparison(found, a, b)


@command(versions, "promote", 'rekindle version promote news/3 --force --reason "checked by hand"')
def promote_version(
    name: Numbered,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="The reason, which is kept for good.")],
    force: Annotated[bool, typer.Option("--force", help="Promote it even if the gate refuses it.")] = False,
) -> None:
    """Make a version live; exit code 3 if the gate refuses it or cannot tell."""
    stream, number = parse_numbered(name)
    body = {"force": force, "reason": reason}
    done = post(f"/streams/{part(stream)}/versions/{number}/promote", body, timeout_s=600)
    if is_json():
        print_json(done)
    else:
        say(f"{stream}/{done['live']} is live ({done['kind']})")


@command(
    versions,
    "export",
    "rekindle version export news@live ./model",
    "rekindle version export news/3 ./adapter --as-adapter",
)
def export_version(
    name: Which,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    as_adapter: Annotated[bool, typer.Option("--as-adapter", help="Write the adapters alone, as PEFT does.")] = False,
) -> None:
    """Write a version as a plain Hugging Face folder, with adapters merged in; a bank of adapters routes by itself."""
    body = {"directory": str(directory.expanduser().absolute()), "as_adapter": as_adapter}
    with busy(f"exporting {name}", left=f"the export to {directory} goes on"):
        done = post(f"{version_path(parse_version_name(name))}/export", body, timeout_s=LONG_S)
    if is_json():
        print_json(done)
    else:
        say(f"{done['stream']}/{done['version']} is in {done['directory']} ({done['form']}, {done['files']} files)")


def evaluate(
    name: Which,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Measure it on the documents of this file instead.")
    ] = None,
    wait_for_it: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the scores.")] = True,
) -> None:
    """Measure a version on its stream's eval sets, and print the scores."""
    if data is not None and not data.is_file():
        raise BadInput(f"there is no file {data}")
    body = {"data": None if data is None else str(data.absolute())}
    ask = partial(post, f"{version_path(parse_version_name(name))}/evaluate", body, timeout_s=LONG_S)
    asked = ask()
    if wait_for_it and not asked["complete"]:
        asked = _measured(asked, ask)
    for one in asked["unscored"]:
        note(f"{one} has nothing to score")
    measuring = f"jobs {text(asked['jobs'])} are measuring; `rekindle job list`"
    show_list(asked["evaluations"], EVALUATION_COLUMNS, empty=measuring if asked["jobs"] else "no scores")


def _measured(asked: dict[str, Any], ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The answer once it is complete; a job that was under way may have left some of the sets for another."""

    def status(_answer: dict[str, Any]) -> Status:
        return Status(text="recording the scores")

    left = "the measuring goes on; `rekindle job list` shows it"
    while not asked["complete"]:
        for job in asked["jobs"]:
            ended: dict[str, Any] = wait(partial(get, f"/jobs/{job}"), until=_has_ended, tell=job_status, left=left)
            if ended["state"] != "succeeded":
                raise RekindleError(f"job {job} has {ended['state']}: {ended['error']}; see `rekindle job logs {job}`")
        asked = wait(ask, until=lambda answer: answer["complete"] or bool(answer["jobs"]), tell=status, left=left)
    return asked


def _has_ended(job: dict[str, Any]) -> bool:
    return job["state"] in JOB_ENDED


def warnings_of(facts: dict[str, Any]) -> list[str]:
    """What the jobs that made a version warn of."""
    return [one for job in facts.get("jobs", {}).values() for one in job.get("warnings", ())]


def _new_bytes(facts: dict[str, Any]) -> str | None:
    """Share of bytes that the version it started from does not have, beside the plan's bound."""
    new = facts.get("new_bytes")
    if new is None:
        return None
    if new["bound"] is None:
        return f"{new['share']:.1%} of its own"
    more = (
        "; more: the parent's tensors have other names or another type, or are gone"
        if new["share"] > new["bound"]
        else ""
    )
    return f"{new['share']:.1%} of its own, at most {new['bound']:.1%} by its plan{more}"


def _edge(edge: dict[str, Any]) -> str:
    """The parent's number; of a merge with the weight that it had."""
    return f"{edge['parent']} (merged, {edge['weight']:.3g})" if edge["role"] == "merged" else str(edge["parent"])


def _print_columns(rows: Sequence[dict[str, Any]], columns: Sequence[tuple[str, Any]]) -> None:
    print_table([name for name, _ in columns], [[text(value(row)) for _, value in columns] for row in rows])


def _print_matrix(rows: Sequence[dict[str, Any]]) -> None:
    numbers = sorted({row["version"] for row in rows})
    sets = dict.fromkeys((row["eval_set"], row["metric"]) for row in rows)
    values = {(row["eval_set"], row["version"]): row["value"] for row in rows}
    headers = ["EVAL SET", "METRIC", *(str(number) for number in numbers)]
    print_table(
        headers,
        [[clean(name), metric, *(text(values.get((name, number))) for number in numbers)] for name, metric in sets],
    )


def _print_transfer(found: dict[str, Any]) -> None:
    """Metrics that need at least two retrains are left out before."""
    named = ("average_performance", "backward_transfer", "forward_transfer", "forgetting", "plasticity")
    known = [f"{name.replace('_', ' ')} {text(found[name])}" for name in named if found[name] is not None]
    if known:
        unit = "minus the loss" if found["metric"] == "loss" else str(found["metric"])
        say(f"over {counted(len(found['stages']), 'retrain')}, in {unit}, higher is better: {', '.join(known)}")


def _print_tree(stream: str, rows: Sequence[dict[str, Any]]) -> None:
    """Each version under its first parent; further parents are named beside it."""
    known = {row["number"] for row in rows}
    children: dict[int | None, list[dict[str, Any]]] = {}
    for row in rows:
        first = next((parent for parent in row["parents"] if parent in known), None)
        children.setdefault(first, []).append(row)
    waiting = [(row, "", "") for row in reversed(children.get(None, []))]
    while waiting:
        row, lead, below = waiting.pop()
        print(f"{lead}{_label(stream, row)}")
        under = children.get(row["number"], [])
        for at, child in reversed(list(enumerate(under))):
            last = at == len(under) - 1
            waiting.append((child, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  ")))


def _label(stream: str, row: dict[str, Any]) -> str:
    more = f", also from {text(row['parents'][1:])}" if len(row["parents"]) > 1 else ""
    batches = f", batches {text(row['batches'])}" if row["batches"] else ""
    return clean(f"{stream}/{row['number']}  {row['state']}, {row['strategy']}{batches}{more}")


def _print_comparison(found: dict[str, Any], a: str, b: str) -> None:
    data = found["data"]
    say(f"data      only {a}: batches {text(data['only_a'])} ({data['documents_only_a']} documents)")
    say(f"          only {b}: batches {text(data['only_b'])} ({data['documents_only_b']} documents)")
    if found["settings"]:
        print()
        print_table(["SETTING", a, b], [[one["key"], text(one["a"]), text(one["b"])] for one in found["settings"]])
    if found["scores"]:
        print()
        keys = ("eval_set", "metric", "a", "b", "change")
        print_table(
            ["EVAL SET", "METRIC", a, b, "CHANGE"], [[text(one[key]) for key in keys] for one in found["scores"]]
        )
    for flip in found["flips"]:
        print()
        say(f"{flip['eval_set']}: of {flip['documents']} documents {flip['negative']} worse, {flip['positive']} better")
        for one in flip["examples"]:
            say(f"  {one['direction']}  {text(one['a'])} → {text(one['b'])}  {one['excerpt']}")
