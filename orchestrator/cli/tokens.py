"""``rekindle token …``."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.base import command, group
from orchestrator.cli.client import call, get, part, post
from orchestrator.cli.configuration import read_interval
from orchestrator.cli.output import Row, field, is_json, print_json, say, show_list, time_field

tokens = group("Create and revoke tokens, which give access to the daemon.")


def _state(row: Row) -> str:
    return "revoked" if row["revoked_at"] else "valid"


COLUMNS = (
    ("NAME", field("name")),
    ("ROLE", field("role")),
    ("STATE", _state),
    ("CREATED", time_field("created_at")),
    ("EXPIRES", time_field("expires_at")),
)


def add_to(app: typer.Typer) -> None:
    """Put these commands under the program."""
    app.add_typer(tokens, name="token")


@command(tokens, "create", "rekindle token create ci --role operator --expires 30d")
def create_token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the token, as the log will show it.")],
    role: Annotated[str, typer.Option(help="What it allows: reader, operator or admin.")] = "operator",
    expires: Annotated[
        str | None, typer.Option(metavar="30d", help="How long it is valid; default: until it is revoked.")
    ] = None,
) -> None:
    """Create a token; its secret is shown only now."""
    expires_in_s = None if expires is None else read_interval(expires)
    made = post("/tokens", {"name": name, "role": role, "expires_in_s": expires_in_s})
    if is_json():
        print_json(made)
    else:
        say(made["secret"])


@command(tokens, "list", "rekindle token list")
def list_tokens() -> None:
    """List tokens, without their secrets."""
    show_list(get("/tokens"), COLUMNS, empty="no tokens")


@command(tokens, "revoke", "rekindle token revoke ci")
def revoke_token(name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the token.")]) -> None:
    """Revoke a token at once and for good."""
    done = call("DELETE", f"/tokens/{part(name)}")
    if is_json():
        print_json(done)
    else:
        say(f"token {name} is revoked")
