"""The command line. It talks to the running daemon over HTTP and imports nothing heavy, so that it starts at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from orchestrator.cli import (
    batches,
    daemon,
    jobs,
    merging,
    mixing,
    shared_options,
    strategies,
    streams,
    tokens,
    triggers,
    versions,
)
from orchestrator.cli.base import OPTIONS, group, remember
from orchestrator.cli.output import clean
from orchestrator.errors import RekindleError

USAGE_ERROR = typer.BadParameter.__mro__[1]
"""Whichever click typer brings: the base of everything that is wrong with how a command was written."""
INTERRUPTED = 130
CLOSED_PIPE = 141

app = group("Keep models current without letting them forget.")
daemon.add_to(app)
streams.add_to(app)
strategies.add_to(app)
batches.add_to(app)
triggers.add_to(app)
jobs.add_to(app)
versions.add_to(app)
merging.add_to(app)
mixing.add_to(app)
tokens.add_to(app)


@app.callback(invoke_without_command=False)
def _root(
    home: shared_options.Home = None,
    output: shared_options.Output = None,
    debug: shared_options.Debug = False,
    version: shared_options.Version = False,
) -> None:
    """Keep models current without letting them forget.

    A daemon (`rekindle serve`) does the work; all other commands talk to it.
    """
    remember(home=home, output=output, debug=debug)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    sys.exit(run(given))


def run(arguments: Sequence[str]) -> int:
    """Run one command; every error is one line on stderr, and a traceback only with ``--debug``."""
    OPTIONS.debug = "--debug" in arguments
    try:
        done = typer.main.get_command(app).main(list(arguments), prog_name="rekindle", standalone_mode=False)
        sys.stdout.flush()
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLOSED_PIPE
    except Exception as error:
        if OPTIONS.debug:
            raise
        return _report(error)
    return done if isinstance(done, int) else 0


def _report(error: Exception) -> int:
    if isinstance(error, RekindleError):
        print(f"error: {clean(error.message)}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, USAGE_ERROR):
        return _report_usage(error)
    said = clean(str(error)) or type(error).__name__
    print(f"error: {said} ({type(error).__name__}); --debug shows where", file=sys.stderr)
    return 1


def _report_usage(error: Exception) -> int:
    context = getattr(error, "ctx", None)
    said = error.format_message() if hasattr(error, "format_message") else str(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(said, file=sys.stderr)
        return 2
    command = context.command_path if context is not None else "rekindle"
    print(f"error: {clean(said).rstrip('.')}; see `{command} --help`", file=sys.stderr)
    return 2
