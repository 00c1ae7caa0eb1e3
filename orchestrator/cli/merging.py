"""``rekindle merge``."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

import typer

from orchestrator.cli.base import command
from orchestrator.cli.client import get, part, post
from orchestrator.cli.configuration import read_assignment
from orchestrator.cli.output import is_json, note, print_json, say, show_one, text
from orchestrator.cli.progress import Status, job_status, wait
from orchestrator.cli.versions import warnings_of
from orchestrator.errors import BadInput, GateRefused, RekindleError
from orchestrator.service.names import parse_numbered
from storage.states import JOB_GAVE_UP

Form = Literal["model", "adapter"]


def add_to(app: typer.Typer) -> None:
    """Put this command under the program."""
    command(
        app,
        "merge",
        "rekindle merge news/3 news/5 --method ties --set density=0.3 --wait",
        "rekindle merge news/3 news/5 --method soup --weight 2 --weight 1",
        "rekindle merge news/1 news/4 --method interpolate --set share=0.3 --dry-run",
        "rekindle merge news/3 news/5 --method pcb --into model",
    )(merge)


def merge(
    versions: Annotated[list[str], typer.Argument(metavar="NAME/N NAME/M...", help="Versions of one stream.")],
    method: Annotated[
        str,
        typer.Option(
            help="soup, greedy-soup, task-arithmetic, ties, dare, pcb, fisher, lines, interpolate or half-reset.",
        ),
    ] = "soup",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method; repeatable.")
    ] = None,
    weight: Annotated[
        list[float] | None, typer.Option(metavar="W", help="Repeat once per version, in order; default: equal.")
    ] = None,
    base: Annotated[
        int | None,
        typer.Option(metavar="N", help="Version that changes are counted from; default: the nearest common ancestor."),
    ] = None,
    into: Annotated[
        Form | None,
        typer.Option(help="model, or adapter (only if all versions are adapters)."),
    ] = None,
    wait_for_it: Annotated[
        bool, typer.Option("--wait", help="Wait for the end; exit code 3 if the gate refuses or cannot tell.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be merged.")] = False,
) -> None:
    """Merge versions into a new one, without training; it goes live only if the gate passes it.

    Adapters on one model become an adapter of the first one's rank, by singular values, unless the method needs full
    models (fisher, greedy-soup); anything else becomes a full model. --into chooses otherwise.

    Changes are counted from the versions' nearest common ancestor. For interpolate, half-reset and lines without
    `after`, name two versions: the second is taken back towards the first.
    """
    named = [parse_numbered(one) for one in versions]
    stream = named[0][0]
    other = next((one for one, (name, _) in zip(versions, named, strict=True) if name != stream), None)
    if other is not None:
        raise BadInput(f"{versions[0]} and {other} are of different streams; merge versions of one stream")
    body = {
        "versions": [number for _, number in named],
        "method": method,
        "settings": dict(read_assignment(one) for one in settings or ()),
        "weights": weight or [],
        "base": base,
        "into": into,
        "dry_run": dry_run,
    }
    asked = post(f"/streams/{part(stream)}/merge", body)
    if dry_run or not wait_for_it:
        _show(asked)
        if asked["made"] is not None:
            _warn(get(f"/streams/{part(stream)}/versions/{asked['made']}"))
        return
    version = _judged(stream, _made(asked))
    _warn(version)
    if is_json():
        print_json(version)
    else:
        say(f"{stream}/{version['number']} is {version['state']}: {_why(version)}")
    _check(stream, version)


def _show(asked: dict[str, Any]) -> None:
    kind, stream = asked["method"]["kind"], asked["stream"]
    chosen = ", ".join(f"{key} {text(value)}" for key, value in asked["method"].items() if key != "kind")
    pairs = zip(asked["parents"], _weights(asked), strict=True)
    job = None if asked["job"] is None else f"{asked['job']} ({asked['state']}); `rekindle job show {asked['job']}`"
    show_one(
        asked,
        [
            ("method", f"{kind} ({chosen})" if chosen else kind),
            ("versions", ", ".join(f"{stream}/{number}{weight}" for number, weight in pairs)),
            ("counted from", f"{stream}/{asked['base']}"),
            ("into", f"a full {asked['into']}" if asked["into"] == "model" else "an adapter on the same base"),
            ("batches", asked["batches"]),
            ("job", job),
            ("version", asked["made"]),
        ],
    )


def _warn(version: dict[str, Any]) -> None:
    for one in warnings_of(version["facts"]):
        note(f"warning: {one}")


def _weights(asked: dict[str, Any]) -> list[str]:
    """As the end of each version's name; what is gone back to has none of its own."""
    weights = [f" (weight {one:g})" for one in asked["weights"]]
    return ["", *weights] if len(weights) < len(asked["parents"]) else weights


def _made(asked: dict[str, Any]) -> int:
    """The number of the version, once its job has ended and the daemon has seen it."""
    ask = partial(get, f"/jobs/{asked['job']}")
    left = f"the merge goes on; `rekindle job show {asked['job']}` says how far it is"
    done = wait(ask, until=lambda job: job["made"] or job["state"] in JOB_GAVE_UP, tell=job_status, left=left)
    if done["made"] is None:
        raise RekindleError(f"job {done['id']} {done['state']}: {done['error']}; see `rekindle job logs {done['id']}`")
    return int(done["made"])


def _judged(stream: str, number: int) -> dict[str, Any]:
    def tell(version: dict[str, Any]) -> Status:
        return Status(text=f"{stream}/{number} is being {'measured' if version['state'] == 'candidate' else 'judged'}")

    found: dict[str, Any] = wait(
        partial(get, f"/streams/{part(stream)}/versions/{number}"),
        until=_is_judged,
        tell=tell,
        left=f"the gate goes on; `rekindle version show {stream}/{number}` shows its verdict",
    )
    return found


def _is_judged(version: dict[str, Any]) -> bool:
    verdict = version["verdict"]
    if version["state"] == "evaluated":
        return verdict is not None and verdict["outcome"] == "inconclusive" and verdict["mode"] == "enforce"
    return bool(version["state"] != "candidate")


def _why(version: dict[str, Any]) -> str:
    return str(version["verdict"]["reason"]) if version["verdict"] else "it could not be measured"


def _check(stream: str, version: dict[str, Any]) -> None:
    if version["state"] in ("rejected", "evaluated"):
        verb = "could not judge" if version["state"] == "evaluated" else "refused"
        name = f"{stream}/{version['number']}"
        raise GateRefused(f"the gate {verb} {name}; `rekindle version show {name}` says why")
