"""``rekindle batch …``."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.base import command, group
from orchestrator.cli.client import get, post
from orchestrator.cli.output import field, is_json, print_json, print_table, say, show_one, text, time_field, when
from orchestrator.cli.paging import Before, Limit, show_page
from storage.states import BATCH_STATES

Id = Annotated[int, typer.Argument(metavar="ID", help="Number of the batch.")]
batches = group("See which batches arrived; hold them back or release them.")
COLUMNS = (
    ("ID", field("id")),
    ("STREAM", field("stream")),
    ("KIND", field("kind")),
    ("NAME", field("name")),
    ("STATE", field("state")),
    ("DOCUMENTS", field("documents")),
    ("DUPLICATES", field("duplicates")),
    ("QUARANTINED", field("quarantined")),
    ("ARRIVED", time_field("created_at")),
)


def add_to(app: typer.Typer) -> None:
    """Put these commands under the program."""
    app.add_typer(batches, name="batch")


@command(batches, "list", "rekindle batch list news", "rekindle batch list news --state held --output json")
def list_batches(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this stream's batches.")] = None,
    state: Annotated[str | None, typer.Option(help=f"Only batches in this state: {', '.join(BATCH_STATES)}.")] = None,
    limit: Limit = 100,
    before: Before = None,
) -> None:
    """List batches, the newest last."""
    rows = get("/batches", stream=name, state=state, limit=limit, before=before)
    show_page(rows, COLUMNS, limit=limit, empty="no batches; `rekindle ingest NAME FILE` brings one")


@command(batches, "show", "rekindle batch show 7")
def show_batch(batch: Id) -> None:
    """Show a batch: what was kept, what was not and why, which versions saw it, themselves or by an ancestor."""
    found = get(f"/batches/{batch}")
    show_one(
        found,
        [
            ("batch", f"{found['id']} of {found['stream']}, {found['state']}"),
            ("reason", found["reason"]),
            ("name", found["name"]),
            ("kind", found["kind"]),
            (
                "documents",
                f"{found['documents']} ({found['train_documents']} train, {found['heldout_documents']} held out)",
            ),
            ("duplicates", found["duplicates"]),
            ("conflicts", found["conflicts"]),
            ("leaked", found["leaked"]),
            ("quarantined", found["quarantined"]),
            ("labels", found["labels"]),
            ("versions", found["versions"]),
            ("content", found["content_hash"]),
            ("arrived", when(found["created_at"])),
        ],
    )
    if found["quarantine"] and not is_json():
        print()
        rows = [[row["file"], str(row["line"]), row["reason"], row["excerpt"]] for row in found["quarantine"]]
        print_table(["FILE", "LINE", "REASON", "EXCERPT"], [[text(cell) for cell in row] for row in rows])


@command(batches, "hold", 'rekindle batch hold 7 --reason "the crawler broke"')
def hold_batch(
    batch: Id, reason: Annotated[str, typer.Option(metavar="TEXT", help="The reason, which is kept for good.")]
) -> None:
    """Keep a batch out of training and replay."""
    _tell(post(f"/batches/{batch}/hold", {"reason": reason}))


@command(batches, "release", "rekindle batch release 7")
def release_batch(batch: Id) -> None:
    """Let a held batch feed training again."""
    _tell(post(f"/batches/{batch}/release"))


def _tell(found: dict[str, object]) -> None:
    if is_json():
        print_json(found)
    else:
        say(f"batch {found['id']} of {found['stream']} is {found['state']}")
