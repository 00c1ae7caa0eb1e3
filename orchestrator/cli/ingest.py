"""``rekindle ingest``: push files as batches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.base import command
from orchestrator.cli.client import part, upload
from orchestrator.cli.output import is_json, note, print_json, say
from orchestrator.cli.progress import sending
from orchestrator.errors import BadInput, RekindleError

REASONS_SHOWN = 5


def add_to(app: typer.Typer) -> None:
    """Put the command under the program."""
    command(app, "ingest", "rekindle ingest news today.jsonl", "rekindle ingest news *.parquet --output json")(ingest)


def ingest(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the stream.")],
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="JSONL, JSON, Parquet, CSV, TSV or text; plain, .gz or .zst."),
    ],
) -> None:
    """Push files as batches, and print what was kept, dropped as duplicate or quarantined."""
    for file in files:
        if file.is_dir():
            raise BadInput(
                f"{file} is a folder; name the files in it, or watch it: `stream set NAME source.uri={file}`"
            )
        if not file.is_file():
            raise BadInput(f"there is no file {file}")
    results = [_push(name, file) for file in files]
    if is_json():
        print_json(results)
    refused = [one for one in results if one["outcome"] == "refused"]
    if refused:
        raise RekindleError(
            f"{len(refused)} of {len(results)} files were refused; {refused[0]['file']}: {refused[0]['reason']}"
        )


def _push(name: str, file: Path) -> dict[str, Any]:
    with sending(file.name, file.stat().st_size) as sent:
        result: dict[str, Any] = upload(f"/streams/{part(name)}/batches", file, on_sent=sent, filename=file.name)
    if not is_json():
        _tell(result)
    return result


def _tell(result: dict[str, Any]) -> None:
    if result["outcome"] == "copy":
        copied = result["reason"] if result["batch"] is None else f"a copy of batch {result['batch']}; nothing was done"
        say(f"{result['file']}: {copied}")
        return
    if result["outcome"] == "refused":
        return
    say(
        f"{result['file']}: batch {result['batch']}, {result['documents']} documents kept, "
        f"{result['duplicates']} duplicates dropped, {result['quarantined']} quarantined"
    )
    for row in result["quarantine"][:REASONS_SHOWN]:
        note(f"  quarantined {row['file']}:{row['line']}: {row['reason']}")
    if len(result["quarantine"]) > REASONS_SHOWN:
        note(f"  … `rekindle batch show {result['batch']}` lists the rest")
