"""``rekindle stream backtest``: what another policy would have come to."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import typer

from orchestrator.cli import configuration
from orchestrator.cli.base import command
from orchestrator.cli.client import call, get, part, post
from orchestrator.cli.output import is_json, note, print_json, print_table, say, text
from orchestrator.cli.progress import Status, job_status, wait
from orchestrator.errors import RekindleError
from storage.states import JOB_UNFINISHED

ASK_S = 600.0
ROWS = (
    ("last version", "version"),
    ("strategies", "strategies"),
    ("went live", "promoted"),
    ("refused", "refused"),
    ("inconclusive", "inconclusive"),
    ("failed", "failed"),
    ("tokens trained", "tokens"),
    ("seconds of its jobs", "train_seconds"),
    ("forgetting", "forgetting"),
)


def add_to(streams: typer.Typer) -> None:
    """Put the command among those of streams."""
    command(
        streams,
        "backtest",
        "rekindle stream backtest news --set strategy.name=naive",
        "rekindle stream backtest news --set strategy.name=rewarm-replay --set strategy.mixing.share=0.1 --until 7",
    )(backtest)


def backtest(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the stream to replay.")],
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY.PATH=VALUE", help="A setting to replay with instead of the recorded one; repeatable."
        ),
    ] = None,
    until: Annotated[int | None, typer.Option(metavar="BATCH", help="The last batch to replay.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the scratch stream for a closer look.")] = False,
) -> None:
    """Replay the recorded batches with other settings and show both outcomes; the live version stays as it is.

    Without --set the recorded scores come out again, unless changed settings, rollbacks or held batches came in
    between.

    The replay takes place in a scratch stream, which is removed at the end. After Ctrl-C or a crash the same command
    goes on with it; `rekindle stream remove SCRATCH --purge` discards it. Where a retrain of the replay fails, the exit
    code is 1 and the scratch stream is kept.
    """
    changes = dict(configuration.read_assignment(one) for one in assign or [])
    body = {"changes": changes, "until": until, "caller": os.urandom(8).hex()}
    ask = partial(post, f"/streams/{part(name)}/backtest", timeout_s=ASK_S)
    first = ask(body)
    scratch = first["scratch"]
    discard = f"`rekindle stream remove {scratch} --purge` discards it"
    left = f"{scratch} stays: the same command goes on from there, {discard}"
    found = (
        first
        if first["state"] == "done"
        else wait(partial(ask, {**body, "scratch": scratch}), until=_is_done, tell=_status, left=left)
    )
    failed = _has_failed(found)
    if not keep and not failed:
        _remove(scratch)
    if is_json():
        print_json(found)
    else:
        _show(found)
    if failed:
        raise RekindleError(f"the replay has failed; {scratch} stays for a closer look, {discard}")


def _is_done(found: dict[str, Any]) -> bool:
    return bool(found["state"] == "done")


def _has_failed(found: dict[str, Any]) -> bool:
    sides = found["recorded"], found["replayed"]
    return found["replayed"]["failed"] > 0 or any(one["unscored"] is not None for one in sides)


def _status(found: dict[str, Any]) -> Status:
    """How many retrains are done, and the job that runs for the present one."""
    total = len(found["batches"])
    for state in reversed(JOB_UNFINISHED):
        jobs = get("/jobs", stream=found["scratch"], state=state, limit=1)
        if jobs:
            inner = job_status(jobs[-1])
            return replace(inner, text=f"retrain {min(found['done'] + 1, total)} of {total}: {inner.text}")
    return Status(text=f"retrain {min(found['done'] + 1, total)} of {total}", step=found["done"], steps=total)


def _remove(scratch: str) -> None:
    try:
        call("DELETE", f"/streams/{part(scratch)}", query={"purge": True}, timeout_s=ASK_S)
    except RekindleError as error:
        note(f"{scratch} is left ({error.message}); `rekindle stream remove {scratch} --purge`")


def _show(found: dict[str, Any]) -> None:
    policy = ", ".join(f"{key}={text(value)}" for key, value in found["changes"].items()) or "the present settings"
    say(f"{found['stream']}, batches {text([one for group in found['batches'] for one in group])}, under {policy}")
    print()
    sides = found["recorded"], found["replayed"]
    print_table(["", "RECORDED", "REPLAYED"], [[label, *(text(one[key]) for one in sides)] for label, key in ROWS])
    _show_ends(found)
    print()
    keys = ("eval_set", "metric", "recorded", "replayed", "change", "recorded_forgetting", "replayed_forgetting")
    headers = ["EVAL SET", "METRIC", "RECORDED", "REPLAYED", "CHANGE", "FORGOTTEN, RECORDED", "FORGOTTEN, REPLAYED"]
    print_table(headers, [[text(one[key]) for key in keys] for one in found["sets"]])


def _show_ends(found: dict[str, Any]) -> None:
    """Why decisions made nothing live, and why scores are lacking."""
    rows: list[list[str]] = []
    for side in ("recorded", "replayed"):
        rows += [[side, text(one["decision"]), one["result"], text(one["outcome"])] for one in found[side]["ends"]]
        rows += [[side, "-", "unscored", found[side]["unscored"]]] if found[side]["unscored"] else []
    if rows:
        print()
        print_table(["SIDE", "DECISION", "RESULT", "WHY"], rows)
