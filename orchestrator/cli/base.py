"""What all commands share: options that every command takes, and help that ends in examples."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperOption

from orchestrator.cli import shared_options
from orchestrator.errors import BadInput
from orchestrator.home import Home

Handler = TypeVar("Handler", bound=Callable[..., Any])
DEFAULT_HOME = "~/.rekindle"


@dataclass
class Options:
    """What was asked for before or after the command's name."""

    home: Path | None = None
    output: str = "text"
    debug: bool = False

    @property
    def place(self) -> Home:
        """The home: ``--home``, REKINDLE_HOME, or the default."""
        chosen = self.home or Path(os.environ.get("REKINDLE_HOME") or DEFAULT_HOME)
        return Home(root=chosen.expanduser().absolute())


OPTIONS = Options()


def remember(*, home: Path | None = None, output: str | None = None, debug: bool = False) -> None:
    """Take over what was given; what was not leaves the earlier word standing.

    Raises:
        BadInput: the output is neither text nor json.
    """
    if output not in (None, "text", "json"):
        raise BadInput(f"unknown output {output!r}; choose text or json")
    OPTIONS.home = home or OPTIONS.home
    OPTIONS.output = output or OPTIONS.output
    OPTIONS.debug = debug or OPTIONS.debug


class Command(TyperCommand):
    """A command that takes ``--home``, ``--output`` and ``--debug`` after its name, too."""

    def __init__(self, name: str | None, *, params: list[Any] | None = None, **rest: Any) -> None:
        super().__init__(name, params=[*(params or []), *_options()], **rest)


def _options() -> list[TyperOption]:
    return [
        _option("--home", shared_options.HOME_HELP, metavar="DIR", callback=lambda value: remember(home=Path(value))),
        _option(
            "--output", shared_options.OUTPUT_HELP, metavar="text|json", callback=lambda value: remember(output=value)
        ),
        _option("--debug", shared_options.DEBUG_HELP, is_flag=True, callback=lambda value: remember(debug=value)),
    ]


def _option(name: str, text: str, *, callback: Callable[[Any], None], **rest: Any) -> TyperOption:
    def given(_context: Any, _option: Any, value: Any) -> None:
        if value:
            callback(value)

    names = [name, "-o"] if name == "--output" else [name]
    return TyperOption(param_decls=names, help=text, expose_value=False, callback=given, **rest)


def group(text: str) -> typer.Typer:
    """A group of commands with plain help and no start-up cost."""
    return typer.Typer(
        help=text, no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False
    )


def command(parent: typer.Typer, name: str, *examples: str) -> Callable[[Handler], Handler]:
    """Add a command whose help ends in examples."""
    lines = "\n".join(f"  {example}" for example in examples)
    decorate = parent.command(name, cls=Command, epilog=f"\b\nExamples:\n{lines}")

    def add(handler: Handler) -> Handler:
        decorate(handler)
        return handler

    return add
