"""``rekindle job …``."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from orchestrator.cli.base import command, group
from orchestrator.cli.client import get, post
from orchestrator.cli.output import (
    Row,
    clean,
    field,
    is_json,
    print_json,
    print_table,
    say,
    show_one,
    text,
    time_field,
    when,
)
from orchestrator.cli.paging import Before, Limit, show_page
from orchestrator.cli.progress import POLL_S
from storage.states import JOB_ENDED, JOB_UNFINISHED

Id = Annotated[int, typer.Argument(metavar="ID", help="Number of the job.")]
jobs = group("See what runs; read logs, cancel, retry.")


def _how_far(row: Row) -> str:
    progress = row["progress"]
    if not progress.get("steps"):
        return text(progress.get("phase"))
    return f"{progress.get('phase', '')} {progress.get('step', 0)}/{progress['steps']}".strip()


COLUMNS = (
    ("ID", field("id")),
    ("STREAM", field("stream")),
    ("KIND", field("kind")),
    ("STATE", field("state")),
    ("ATTEMPT", field("attempt")),
    ("PROGRESS", _how_far),
    ("CREATED", time_field("created_at")),
    ("ERROR", field("error")),
)


def add_to(app: typer.Typer) -> None:
    """Put these commands under the program."""
    app.add_typer(jobs, name="job")


@command(jobs, "list", "rekindle job list", "rekindle job list news --state running --output json")
def list_jobs(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this stream's jobs.")] = None,
    state: Annotated[
        str | None, typer.Option(help=f"Only jobs in this state: {', '.join((*JOB_UNFINISHED, *JOB_ENDED))}.")
    ] = None,
    limit: Limit = 100,
    before: Before = None,
) -> None:
    """List jobs, the newest last."""
    rows = get("/jobs", stream=name, state=state, limit=limit, before=before)
    show_page(rows, COLUMNS, limit=limit, empty="no jobs")


@command(jobs, "show", "rekindle job show 31")
def show_job(job: Id) -> None:
    """Show a job with its progress and attempts."""
    found = get(f"/jobs/{job}")
    show_one(
        found,
        [
            ("job", f"{found['id']} ({found['name']}) of {found['stream']}, {found['state']}"),
            ("kind", found["kind"]),
            ("attempt", f"{found['attempt']} of {found['max_attempts']}"),
            ("progress", found["progress"]),
            ("error", found["error"]),
            ("decision", found["decision"]),
            ("version", found["version"]),
            ("made version", found["made"]),
            ("needs", found["needs"]),
            ("cores, GPUs", f"{found['cpus']}, {found['gpus']}"),
            ("created", when(found["created_at"])),
            ("started", when(found["started_at"])),
            ("finished", when(found["finished_at"])),
        ],
    )
    if found["attempts"] and not is_json():
        print()
        print_table(["ATTEMPT", "STATE", "HOST", "PID", "EXIT", "ERROR"], [_attempt(one) for one in found["attempts"]])


@command(jobs, "logs", "rekindle job logs 31", "rekindle job logs -f 31")
def job_logs(
    job: Id,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Follow the log until the job has ended, over all its attempts.")
    ] = False,
    attempt: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The log of this attempt; default: the newest.")
    ] = None,
) -> None:
    """Print a job's log."""
    written: list[str] = []
    for piece in _pieces(job, attempt, follow=follow):
        written.append(piece["text"])
        if not is_json():
            sys.stdout.write(clean(piece["text"], keep="\n\t"))
            sys.stdout.flush()
    if is_json():
        print_json({"job": job, "attempt": piece["attempt"], "state": piece["state"], "text": "".join(written)})


def _pieces(job: int, attempt: int | None, *, follow: bool) -> Iterator[dict[str, Any]]:
    """The log piece by piece; a job that is tried again while it is followed goes on with the next attempt's log."""
    chosen, offset = attempt, 0
    while True:
        piece = get(f"/jobs/{job}/log", attempt=chosen, offset=offset)
        yield piece
        offset, chosen = piece["next_offset"], piece["attempt"] or None
        if piece["text"]:
            continue
        if not follow or (piece["complete"] and (attempt is not None or piece["state"] in JOB_ENDED)):
            return
        newest = get(f"/jobs/{job}")["attempt"]
        if piece["complete"] and newest > piece["attempt"]:
            chosen, offset = newest, 0
        time.sleep(POLL_S)


@command(jobs, "cancel", "rekindle job cancel 31")
def cancel_job(job: Id) -> None:
    """Cancel a job; a running one writes a checkpoint first."""
    _tell(post(f"/jobs/{job}/cancel"), "is being cancelled")


@command(jobs, "retry", "rekindle job retry 31")
def retry_job(job: Id) -> None:
    """Retry a failed or cancelled job, from its last checkpoint."""
    _tell(post(f"/jobs/{job}/retry"), "is tried again")


def _tell(found: dict[str, Any], what: str) -> None:
    if is_json():
        print_json(found)
    else:
        say(f"job {found['id']} of {found['stream']} {what} ({found['state']})")


def _attempt(one: dict[str, Any]) -> list[str]:
    return [text(one[key]) for key in ("number", "state", "host", "pid", "exit_code", "error")]
