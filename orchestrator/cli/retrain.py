"""``rekindle retrain``, ``rollback`` and ``decision …``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from orchestrator.cli.base import command, group
from orchestrator.cli.client import get, part, post
from orchestrator.cli.output import field, is_json, print_json, say, show_one, text, time_field, when
from orchestrator.cli.paging import Before, Limit, show_page
from orchestrator.cli.progress import Status, job_status, wait
from orchestrator.errors import GateRefused, RekindleError
from storage.states import JOB_UNFINISHED

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the stream.")]
decisions = group("See what was decided, and why.")
COLUMNS = (
    ("ID", field("id")),
    ("STREAM", field("stream")),
    ("STATE", field("state")),
    ("STRATEGY", lambda row: row["strategy"] or row["requested"]),
    ("BATCHES", lambda row: len(row["batches"])),
    ("VERSION", field("version")),
    ("RESULT", field("result")),
    ("CREATED", time_field("created_at")),
)


def add_to(app: typer.Typer) -> None:
    """Put these commands under the program."""
    command(app, "retrain", "rekindle retrain news --wait", "rekindle retrain news --strategy rewarm-replay --dry-run")(
        retrain
    )
    command(
        app,
        "rollback",
        'rekindle rollback news --reason "answers got worse"',
        'rekindle rollback news --to 3 --reason "bad batch"',
    )(rollback)
    app.add_typer(decisions, name="decision")


def retrain(
    name: Name,
    strategy: Annotated[
        str | None, typer.Option(help="Strategy to use this once, instead of the stream's own.")
    ] = None,
    wait_for_it: Annotated[
        bool, typer.Option("--wait", help="Wait for the end; exit code 3 if the gate refuses or cannot tell.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the decision that would be made.")] = False,
) -> None:
    """Retrain on the pending batches; while a decision is open, return that one."""
    body = {"strategy": strategy, "dry_run": dry_run}
    path = f"/streams/{part(name)}/retrain"
    if dry_run:
        _show_preview(_preview(path, body))
        return
    decision = post(path, body)["decision"]
    if wait_for_it:
        decision = _wait(decision["id"])
    if is_json():
        print_json(decision)
    else:
        say(_sentence(decision))
    if wait_for_it:
        _check(decision)


def rollback(
    name: Name,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="The reason, which is kept for good.")],
    to: Annotated[
        int | None, typer.Option(metavar="N", help="Version to return to; default: the one that was live before.")
    ] = None,
) -> None:
    """Return to the version that was live before this one, or to any that was ever live."""
    done = post(f"/streams/{part(name)}/rollback", {"to": to, "reason": reason}, timeout_s=600)
    if is_json():
        print_json(done)
        return
    say(f"{name}/{done['live']} is live again; {name}/{done['previous']} was live before")
    if done["held"]:
        say(f"held: batches {text(done['held'])}; `rekindle stream release-batches {name}` lets them train again")


@command(decisions, "list", "rekindle decision list news", "rekindle decision list --output json")
def list_decisions(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this stream's decisions.")] = None,
    limit: Limit = 100,
    before: Before = None,
) -> None:
    """List decisions, the newest last."""
    rows = get("/decisions", stream=name, limit=limit, before=before)
    show_page(rows, COLUMNS, limit=limit, empty="no decisions; `rekindle retrain NAME` asks for one")


@command(decisions, "show", "rekindle decision show 12")
def show_decision(decision: Annotated[int, typer.Argument(metavar="ID", help="Number of the decision.")]) -> None:
    """Show a decision: what was measured, what was chosen and why, what was turned down."""
    found = get(f"/decisions/{decision}")
    verdict = found["verdict"] or {}
    show_one(
        found,
        [
            ("decision", f"{found['id']} on {found['stream']}, {found['state']}"),
            ("strategy", found["strategy"] or f"{found['requested']} (asked for)"),
            ("reason", found["reason"]),
            ("batches", found["batches"]),
            ("parent", f"{found['stream']}/{found['parent']}"),
            *found["measured"].items(),
            *_turned_down(found["alternatives"]),
            ("jobs", found["jobs"]),
            ("version", found["version"]),
            ("gate", verdict.get("outcome")),
            ("gate's reason", verdict.get("reason")),
            ("outcome", found["outcome"]),
            ("asked by", found["actor"]),
            ("created", when(found["created_at"])),
            ("closed", when(found["closed_at"]) if found["closed_at"] else None),
        ],
    )


def _preview(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The decision as it would be; measuring the new data comes first, and its result is kept."""

    def status(preview: dict[str, Any]) -> Status:
        if preview.get("job") is None:
            return Status(text="waiting for the scores of the live version")
        return job_status(get(f"/jobs/{preview['job']}"))

    found: dict[str, Any] = wait(
        lambda: post(path, body)["preview"],
        until=lambda one: one.get("state") != "measuring",
        tell=status,
        left="the measuring goes on, and the same command shows what comes of it",
    )
    return found


def _show_preview(preview: dict[str, Any]) -> None:
    show_one(
        preview,
        [
            ("strategy", preview.get("strategy")),
            ("reason", preview.get("reason")),
            ("batches", preview.get("batches")),
            ("parent", preview.get("parent")),
            *preview.get("measured", {}).items(),
            ("probe", (preview.get("probe") or {}).get("reason")),
            *_turned_down(preview.get("alternatives", ())),
            *[(key, _value(one)) for key, one in preview.get("values", {}).items()],
        ],
    )


def _value(one: Any) -> str:
    return f"{text(one['value'])} ({one['origin']})" if isinstance(one, dict) and "origin" in one else text(one)


def _turned_down(alternatives: Sequence[Any]) -> list[tuple[str, str]]:
    return [("turned down", _alternative(one)) for one in alternatives]


def _alternative(one: Any) -> str:
    if isinstance(one, dict) and "strategy" in one:
        return f"{one['strategy']}: {one.get('reason', '')}"
    return text(one)


def _wait(decision: int) -> dict[str, Any]:
    found: dict[str, Any] = wait(
        lambda: get(f"/decisions/{decision}"),
        until=lambda one: one["state"] == "closed",
        tell=_status,
        left=f"decision {decision} goes on; `rekindle decision show {decision}` says how far it is",
    )
    return found


def _status(decision: dict[str, Any]) -> Status:
    """The job that runs for the decision, or for the stream while it is measured and judged."""
    for state in reversed(JOB_UNFINISHED):
        jobs = get("/jobs", stream=decision["stream"], state=state, limit=1)
        if jobs:
            return job_status(jobs[-1])
    return Status(text=f"decision {decision['id']} is {decision['state']}")


def _sentence(decision: dict[str, Any]) -> str:
    name = f"{decision['stream']}/{decision['version']}"
    if decision["result"] is None:
        return f"decision {decision['id']} is {decision['state']}: {decision['reason']}"
    if decision["result"] == "promoted":
        return f"{name} is live: {decision['outcome'] or decision['reason']}"
    return f"decision {decision['id']} ended: {decision['outcome'] or decision['result']}"


def _check(decision: dict[str, Any]) -> None:
    name = f"{decision['stream']}/{decision['version']}"
    if decision["result"] in ("refused", "inconclusive"):
        verb = "refused" if decision["result"] == "refused" else "could not judge"
        raise GateRefused(f"the gate {verb} {name}; `rekindle decision show {decision['id']}` says why")
    if decision["result"] != "promoted":
        raise RekindleError(f"decision {decision['id']} made nothing live; `rekindle decision show {decision['id']}`")
