"""``rekindle trigger …``."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.base import command, group
from orchestrator.cli.client import get, part, post
from orchestrator.cli.output import field, show_list, time_field, when

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the stream.")]
Which = Annotated[str | None, typer.Argument(metavar="[TRIGGER]", help="One trigger; default: all of the stream's.")]
triggers = group("See when streams retrain; pause, resume and test triggers.")
COLUMNS = (
    ("STREAM", field("stream")),
    ("TRIGGER", field("name")),
    ("KIND", field("kind")),
    ("STATE", field("state")),
    ("NEXT FIRE", time_field("next_fire")),
    ("LAST VERDICT", field("last_verdict")),
    ("REASON", field("last_reason")),
)
TEST_COLUMNS = (
    ("TRIGGER", field("name")),
    ("KIND", field("kind")),
    ("WOULD RETRAIN", field("retrain")),
    ("REASON", field("reason")),
    ("NEXT FIRES", lambda row: [when(one) for one in row["next_fires"]]),
)


def add_to(app: typer.Typer) -> None:
    """Put these commands under the program."""
    app.add_typer(triggers, name="trigger")


@command(triggers, "list", "rekindle trigger list", "rekindle trigger list news --output json")
def list_triggers(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this stream's triggers.")] = None,
) -> None:
    """List triggers with their next firing and last verdict."""
    rows = get("/triggers", stream=name)
    show_list(rows, COLUMNS, empty="no triggers; `rekindle stream add --every 6h` or a settings file brings one")


@command(triggers, "pause", "rekindle trigger pause news", "rekindle trigger pause news cron")
def pause_trigger(name: Name, trigger: Which = None) -> None:
    """Stop a trigger from firing until it is resumed."""
    show_list(post(f"/streams/{part(name)}/triggers/pause", trigger=trigger), COLUMNS, empty="no triggers")


@command(triggers, "resume", "rekindle trigger resume news", "rekindle trigger resume news cron")
def resume_trigger(name: Name, trigger: Which = None) -> None:
    """Let a paused trigger fire again."""
    show_list(post(f"/streams/{part(name)}/triggers/resume", trigger=trigger), COLUMNS, empty="no triggers")


@command(triggers, "test", "rekindle trigger test news")
def try_trigger(name: Name, trigger: Which = None) -> None:
    """Show what a trigger would decide now and when it fires next; nothing is started."""
    rows = get(f"/streams/{part(name)}/triggers/test", trigger=trigger)
    show_list(rows, TEST_COLUMNS, empty="no triggers")
