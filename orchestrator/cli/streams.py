"""``rekindle stream …``, ``ingest``, ``retrain`` and ``rollback``: what the owner of a stream does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.assignments import put
from orchestrator.cli import backtest, configuration, ingest, retrain
from orchestrator.cli.base import command, group
from orchestrator.cli.client import call, get, part, post
from orchestrator.cli.output import (
    field,
    is_json,
    note,
    print_json,
    print_table,
    say,
    show_list,
    text,
    time_field,
    when,
)
from orchestrator.cli.progress import Status, wait
from orchestrator.errors import BadInput, RekindleError

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the stream.")]
Config = Annotated[Path | None, typer.Option("--config", metavar="FILE.yaml", help="YAML file of settings.")]
Assign = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="One setting; overrides --config; repeatable."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only check, and show the settings that would result.")]
FLAG_KEYS = {"--model": "model", "--task": "task", "--source": "source.uri", "--strategy": "strategy.name"}
streams = group("Register streams and look after them.")
COLUMNS = (
    ("NAME", field("name")),
    ("TASK", field("task")),
    ("STATE", field("state")),
    ("LIVE", field("live")),
    ("PENDING", field("pending_batches")),
    ("STRATEGY", field("strategy")),
    ("NEXT FIRE", time_field("next_fire")),
)


def add_to(app: typer.Typer) -> None:
    """Put these commands under the program."""
    app.add_typer(streams, name="stream")
    backtest.add_to(streams)
    ingest.add_to(app)
    retrain.add_to(app)


@command(
    streams,
    "add",
    "rekindle stream add news --model ./base --source ./inbox --every 6h",
    'rekindle stream add news --config news.yaml --cron "0 3 * * *" --set training.max_steps=200',
)
def add_stream(
    name: Name,
    model: Annotated[str | None, typer.Option(metavar="PATH_OR_HUB_ID", help="The base model.")] = None,
    task: Annotated[str | None, typer.Option(help="causal-lm, sft or classification.")] = None,
    source: Annotated[
        str | None, typer.Option(metavar="URI", help="Folder, glob or URL that batches arrive at.")
    ] = None,
    cron: Annotated[str | None, typer.Option(help='Retrain at these times, as in a crontab: "0 3 * * *".')] = None,
    every: Annotated[str | None, typer.Option(help="Retrain at this interval: 90s, 30m, 6h or 1d.")] = None,
    strategy: Annotated[str | None, typer.Option(help="Strategy to retrain with; default: auto.")] = None,
    config: Config = None,
    assign: Assign = None,
    wait_for_it: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the base model is stored.")] = True,
    dry_run: DryRun = False,
) -> None:
    """Register a stream; its base model becomes version 1 and is live at once."""
    flags = {"--model": model, "--task": task, "--source": source, "--strategy": strategy}
    settings, origins = assemble(name, flags, cron=cron, every=every, config=config, assign=assign or [])
    body = {"settings": settings, "origins": origins}
    answer = post("/streams", body, dry_run=dry_run)
    for warning in answer["warnings"]:
        note(f"warning: {warning}")
    if dry_run:
        _show_preview(answer)
        return
    if wait_for_it:
        answer = _registered(name)
    if is_json():
        print_json(answer)
    elif answer["state"] == "registering":
        say(f"stream {name} is being registered; `rekindle stream show {name}` says how far it is")
    else:
        say(f"stream {name} is registered; version {answer['live']} is live")


@command(streams, "list", "rekindle stream list", "rekindle stream list --all --output json")
def list_streams(
    everything: Annotated[bool, typer.Option("--all", help="Include archived streams.")] = False,
) -> None:
    """List the streams."""
    rows = get("/streams", archived=everything)
    show_list(rows, COLUMNS, empty="no streams; `rekindle stream add NAME --model PATH` registers one")


@command(streams, "show", "rekindle stream show news", "rekindle stream show news --output json")
def show_stream(name: Name) -> None:
    """Show a stream: its settings and what set them, triggers, live version, waiting batches."""
    found = get(f"/streams/{part(name)}")
    if is_json():
        print_json(found)
        return
    _show_summary(found)
    print()
    print_table(["SETTING", "VALUE", "ORIGIN"], [_setting(one) for one in found["settings"]])
    if found["triggers"]:
        print()
        print_table(
            ["TRIGGER", "KIND", "STATE", "NEXT FIRE", "LAST VERDICT", "REASON"],
            [_trigger(one) for one in found["triggers"]],
        )


@command(
    streams,
    "set",
    "rekindle stream set news training.learning_rate=1e-4",
    "rekindle stream set news --config changes.yaml --dry-run",
)
def set_stream(
    name: Name,
    assignments: Annotated[
        list[str] | None, typer.Argument(metavar="KEY.PATH=VALUE...", help="Settings to change.")
    ] = None,
    config: Config = None,
    assign: Assign = None,
    dry_run: DryRun = False,
) -> None:
    """Change settings, in a new revision; jobs that already run keep the old one."""
    changes, origins = _changes(config, [*(assignments or []), *(assign or [])])
    if not changes:
        raise BadInput("nothing to set; write KEY.PATH=VALUE, e.g. training.learning_rate=1e-4")
    body = {"changes": changes, "origins": origins}
    answer = call("PATCH", f"/streams/{part(name)}", query={"dry_run": dry_run}, body=body)
    if dry_run:
        _show_preview(answer)
    elif is_json():
        print_json(answer)
    else:
        say(
            f"stream {name} has revision {answer['revision']}: "
            + ", ".join(f"{key}={text(one)}" for key, one in changes.items())
        )


@command(streams, "rebase", "rekindle stream rebase news --model ./base-2")
def rebase_stream(
    name: Name,
    model: Annotated[str, typer.Option(metavar="PATH_OR_HUB_ID", help="The new base model.")],
    revision: Annotated[str | None, typer.Option(help="Revision of the model on the hub.")] = None,
) -> None:
    """Put the stream on another base model: a new root version, which the gate judges like any candidate."""
    body = {"model": configuration.resolve("model", model, Path.cwd()), "revision": revision}
    version = post(f"/streams/{part(name)}/rebase", body, timeout_s=3600)
    if is_json():
        print_json(version)
    else:
        say(f"{name}/{version['number']} is the new base; it goes live if the gate passes it")


@command(streams, "pause", "rekindle stream pause news")
def pause_stream(name: Name) -> None:
    """Stop triggers and retrains; running jobs go on."""
    _tell(post(f"/streams/{part(name)}/pause"))


@command(streams, "resume", "rekindle stream resume news")
def resume_stream(name: Name) -> None:
    """Let a paused stream retrain again."""
    _tell(post(f"/streams/{part(name)}/resume"))


@command(streams, "remove", "rekindle stream remove news", "rekindle stream remove news --purge")
def remove_stream(
    name: Name,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete its models and data, too; the lineage is kept.")
    ] = False,
) -> None:
    """Archive a stream, and free its name."""
    _tell(call("DELETE", f"/streams/{part(name)}", query={"purge": purge}))


@command(
    streams, "release-batches", "rekindle stream release-batches news", "rekindle stream release-batches news --batch 7"
)
def release_batches(
    name: Name,
    batch: Annotated[list[int] | None, typer.Option(metavar="ID", help="Release only this batch; repeatable.")] = None,
) -> None:
    """Let held batches feed training again: all of them, or those named by --batch."""
    released = post(f"/streams/{part(name)}/release-batches", {"batches": batch or []})
    columns = (("BATCH", field("id")), ("NAME", field("name")), ("STATE", field("state")))
    show_list(released, columns, empty=f"stream {name} holds no batch")


@command(streams, "schema", "rekindle stream schema > stream.schema.json")
def stream_schema() -> None:
    """Print the settings of a stream as JSON Schema; needs no daemon."""
    from orchestrator.settings import StreamSettings

    print_json(StreamSettings.model_json_schema())


def assemble(
    name: str,
    flags: dict[str, str | None],
    *,
    cron: str | None,
    every: str | None,
    config: Path | None,
    assign: list[str],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Raw settings from file, flags and ``--set``, in this order, and where each key was written.

    Raises:
        BadInput: a file or an assignment cannot be read, or both --cron and --every are given.
    """
    if cron is not None and every is not None:
        raise BadInput("--cron and --every exclude each other here; write both triggers into --config")
    settings: dict[str, Any] = {}
    if config is not None:
        settings = configuration.resolve_paths(configuration.read_file(config), config.parent.absolute())
        if settings.get("name", name) != name:
            raise BadInput(f"{config} names stream {settings['name']!r}, the command {name!r}; make them agree")
    origins = dict.fromkeys(configuration.keys(settings), "file")
    for flag, value in flags.items():
        key = FLAG_KEYS[flag]
        if value is not None:
            put(settings, key, configuration.resolve(key, value, Path.cwd()))
            origins[key] = flag
    _add_trigger(settings, origins, cron=cron, every=every)
    origins |= dict.fromkeys(configuration.merged(settings, assign, Path.cwd()), "--set")
    settings["name"] = name
    return settings, {**origins, "name": "command line"}


def _add_trigger(settings: dict[str, Any], origins: dict[str, str], *, cron: str | None, every: str | None) -> None:
    added: dict[str, Any] | None = None
    if cron is not None:
        added, origin = {"kind": "cron", "cron": cron}, "--cron"
    elif every is not None:
        added, origin = {"kind": "interval", "every_seconds": configuration.read_interval(every)}, "--every"
    if added is not None:
        before = settings.get("triggers") or []
        if not isinstance(before, list):
            raise BadInput("triggers in --config is no list; write - kind: cron")
        settings["triggers"] = [*before, added]
        origins["triggers"] = f"file, {origin}" if before else origin


def _changes(config: Path | None, assignments: list[str]) -> tuple[dict[str, Any], dict[str, str]]:
    changes: dict[str, Any] = {}
    if config is not None:
        settings = configuration.resolve_paths(configuration.read_file(config), config.parent.absolute())
        changes = dict(_flat(settings))
    origins = dict.fromkeys(changes, "file")
    for written in assignments:
        key, value = configuration.read_assignment(written)
        changes[key] = configuration.resolve(key, value, Path.cwd())
        origins[key] = "--set"
    return changes, origins


def _flat(settings: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


def _registered(name: str) -> dict[str, Any]:
    def status(found: dict[str, Any]) -> Status:
        return Status(text=f"stream {found['name']} is {found['state']}: storing the base model and its anchor")

    found: dict[str, Any] = wait(
        lambda: get(f"/streams/{part(name)}"),
        until=lambda one: one["state"] != "registering",
        tell=status,
        left=f"the registration goes on; `rekindle stream show {name}` says how far it is",
    )
    if found["state"] == "failed":
        raise RekindleError(f"stream {name} could not be registered: {found['error']}")
    return found


def _tell(stream: dict[str, Any]) -> None:
    if is_json():
        print_json(stream)
    else:
        say(f"stream {stream['name']} is {stream['state']}")


def _show_preview(preview: dict[str, Any]) -> None:
    if is_json():
        print_json(preview)
    else:
        print_table(["SETTING", "VALUE", "ORIGIN"], [_setting(one) for one in preview["settings"]])


def _show_summary(found: dict[str, Any]) -> None:
    say(f"stream {found['name']} is {found['state']}" + (f": {found['error']}" if found["error"] else ""))
    live = "-" if found["live"] is None else f"{found['name']}/{found['live']}"
    say(f"live     {live} at {text(found['published'])}")
    say(f"pending  {found['pending_batches']} batches, {found['pending_documents']} training documents")
    if found["held"]:
        say(f"held     batches {text(found['held'])}; see `rekindle stream release-batches`")
    if found["open_decision"] is not None:
        say(f"open     decision {found['open_decision']}; `rekindle decision show {found['open_decision']}`")
    for warning in found["warnings"]:
        say(f"warning  {warning}")


def _setting(one: dict[str, Any]) -> list[str]:
    return [one["key"], text(one["value"]), one["origin"]]


def _trigger(one: dict[str, Any]) -> list[str]:
    last = [text(one["last_verdict"]), text(one["last_reason"])]
    return [one["name"], one["kind"], one["state"], when(one["next_fire"]), *last]
