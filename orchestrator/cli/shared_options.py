"""Options that every command takes, before or after its name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HOME_HELP = "Home folder of the daemon (REKINDLE_HOME; default ~/.rekindle)."
OUTPUT_HELP = "How data is printed: text or json."
DEBUG_HELP = "Show a traceback on errors."

Home = Annotated[Path | None, typer.Option("--home", metavar="DIR", help=HOME_HELP)]
Output = Annotated[str | None, typer.Option("--output", "-o", metavar="text|json", help=OUTPUT_HELP)]
Debug = Annotated[bool, typer.Option("--debug", help=DEBUG_HELP)]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"rekindle {version('rekindle')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]
